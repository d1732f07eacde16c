//! Where a transfer goes to or comes from: hosts and paths as they are typed.
//!
//! ```text
//! HOST:MODULE/PATH                     the usual form; the port is the default one, or that of --port
//! [::1]:MODULE/PATH                    an IPv6 address
//! supersync://HOST:PORT/MODULE/PATH    a URL; `%41` is the byte 0x41 of a path
//! ```
//!
//! Nothing here is a guess: what could be meant in two ways is refused with the two ways to write it.

use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;

use crate::limits;
use crate::units::TreePath;

const SCHEME: &[u8] = b"supersync://";

/// A host as it was typed: its name or address, and its port where that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Without brackets.
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

/// A path in a module of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) host: Host,
    /// The module's name and what lies below, as it goes over the wire: no `/` at the start, no two in a row; one at
    /// the end is there where it was typed.
    pub(super) path: Vec<u8>,
}

impl Host {
    /// `HOST`, `HOST:PORT`, an IPv6 address, or one in brackets with or without `:PORT`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self { name: text.to_owned(), port: None });
        }
        if let Some((name, rest)) = bracketed(text)? {
            let port = match rest.strip_prefix(':') {
                Some(digits) => Some(port(digits)?),
                None if rest.is_empty() => None,
                None => return Err(format!("\"{rest}\" stands behind the address: write [ADDRESS]:PORT")),
            };
            return Ok(Self { name: name.to_owned(), port });
        }
        let (name, digits) = text.split_once(':').map_or((text, None), |(name, digits)| (name, Some(digits)));
        Ok(Self { name: host_name(name)?.to_owned(), port: digits.map(port).transpose()? })
    }

    /// The port that was said, in whichever way, or the default one.
    ///
    /// # Errors
    /// It was said twice.
    pub(super) fn port_or(&self, option: Option<u16>, default: u16) -> Result<u16, String> {
        match (self.port, option) {
            (Some(one), Some(other)) if one != other => {
                Err(format!("the port is {one} in \"{self}\" and {other} in --port: write one of them"))
            }
            (one, other) => Ok(one.or(other).unwrap_or(default)),
        }
    }
}

/// As it can be typed again.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]", self.name)?,
            false => f.write_str(&self.name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Remote {
    /// One of the forms above.
    pub(super) fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        match bytes.strip_prefix(SCHEME) {
            Some(rest) => Self::parse_url(rest),
            None => Self::parse_short(bytes),
        }
    }

    fn parse_url(rest: &[u8]) -> Result<Self, String> {
        let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let authority = std::str::from_utf8(authority).map_err(|_| "the host is no text".to_owned())?;
        if authority.contains('@') {
            return Err(NO_USERS.to_owned());
        }
        let path = percent_decoded(path.get(1..).unwrap_or_default())?;
        Ok(Self { host: Host::parse(authority)?, path: wire_path(&path)? })
    }

    fn parse_short(bytes: &[u8]) -> Result<Self, String> {
        const FORM: &str = "write HOST:MODULE/PATH, as files.example:data/today";
        let split = if bytes.starts_with(b"[") {
            bytes.windows(2).position(|pair| pair == b"]:").map(|at| at + 1)
        } else {
            bytes.iter().position(|&byte| byte == b':')
        };
        let colon = split.ok_or_else(|| format!("there is no host in it: {FORM}"))?;
        let (host, path) = (&bytes[..colon], &bytes[colon + 1..]);
        if host.contains(&b'/') {
            return Err(format!("this is a path of this host: {FORM}"));
        }
        if host.is_empty() || path.starts_with(b":") {
            return Err(format!("{FORM}; an IPv6 address stands in brackets, as [::1]:data/today"));
        }
        let host = std::str::from_utf8(host).map_err(|_| "the host is no text".to_owned())?;
        if host.contains('@') {
            return Err(NO_USERS.to_owned());
        }
        let name = match bracketed(host)? {
            Some((name, "")) => name,
            Some((_, rest)) => return Err(format!("\"{rest}\" stands behind the address: {FORM}")),
            None => host_name(host)?,
        };
        let digits = path.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && path.get(digits) == Some(&b':') {
            let (port, rest) = (path[..digits].escape_ascii(), path[digits + 1..].escape_ascii());
            return Err(format!("a port goes with --port {port}, or write supersync://{host}:{port}/{rest}"));
        }
        Ok(Self { host: Host { name: name.to_owned(), port: None }, path: wire_path(path)? })
    }
}

/// As it can be typed again, but for bytes that are no text.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        match self.host.port {
            Some(_) => write!(f, "supersync://{}/{path}", self.host),
            None => write!(f, "{}:{path}", self.host),
        }
    }
}

const NO_USERS: &str = "there are no users at the other end: leave out what stands before the '@'";

/// The address in the brackets that `text` begins with, and what follows them; `None` where it begins otherwise.
fn bracketed(text: &str) -> Result<Option<(&str, &str)>, String> {
    let Some(inner) = text.strip_prefix('[') else { return Ok(None) };
    let (address, rest) = inner.split_once(']').ok_or("the '[' has no ']'")?;
    // fe80::1%eth0: an address that needs to be told its interface.
    let bare = address.split_once('%').map_or(address, |(bare, _)| bare);
    match bare.parse::<Ipv6Addr>() {
        Ok(_) => Ok(Some((address, rest))),
        Err(_) => Err(format!("\"{address}\" is no IPv6 address")),
    }
}

fn host_name(text: &str) -> Result<&str, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match text {
        "" => Err("the host is missing".to_owned()),
        _ if text.starts_with('-') || !text.chars().all(fits) => Err(format!("\"{text}\" is no name of a host")),
        _ => Ok(text),
    }
}

/// A port that somebody can listen on.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("\"{text}\" is no port: a number from 1 to 65535"))
}

/// `path` as it goes over the wire.
fn wire_path(path: &[u8]) -> Result<Vec<u8>, String> {
    if path.starts_with(b"/") {
        let what = "the path begins with '/', and should with the name of a module";
        return Err(format!("{what}: the server's config says which directory has which name"));
    }
    let mut wire: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || wire.last() != Some(&b'/') {
            wire.push(byte);
        }
    }
    let whole = TreePath::new(wire.strip_suffix(b"/").unwrap_or(&wire)).map_err(|error| error.to_string())?;
    let module = whole.as_bytes().split(|&byte| byte == b'/').next().unwrap_or_default();
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match module {
        b"" => Err("the path names no module: write HOST:MODULE or HOST:MODULE/PATH".to_owned()),
        _ if module.len() > limits::MODULE_NAME_BYTES_MAX || !module.iter().all(fits) => {
            let module = module.escape_ascii();
            Err(format!("\"{module}\" is no name of a module: those have letters, digits, '.', '_' and '-'"))
        }
        _ => Ok(wire),
    }
}

fn percent_decoded(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err("a '%' of a URL is followed by two hexadecimal digits; '%' itself is %25".to_owned());
        };
        out.push((high << 4 | low) as u8);
        rest = &after[2..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], host: &str, port: Option<u16>, path: &[u8]) {
        let remote = Remote::parse(OsStr::from_bytes(text)).unwrap_or_else(|e| panic!("{}: {e}", text.escape_ascii()));
        let expected = Remote { host: Host { name: host.into(), port }, path: path.into() };
        assert_eq!(remote, expected, "{}", text.escape_ascii());
    }

    #[track_caller]
    fn refused(text: &[u8], why: &str) {
        let error = Remote::parse(OsStr::from_bytes(text)).expect_err(&text.escape_ascii().to_string());
        assert!(error.contains(why), "{}: {error}", text.escape_ascii());
    }

    #[test]
    fn a_remote_path_is_a_host_and_a_path_in_a_module() {
        check(b"files.example:data", "files.example", None, b"data");
        check(b"10.1.1.5:data/a b/c", "10.1.1.5", None, b"data/a b/c");
        check(b"h:data/a:b", "h", None, b"data/a:b");
        check(b"h:data/\xff%41", "h", None, b"data/\xff%41");
        check(b"[::1]:data/x", "::1", None, b"data/x");
        check(b"[fe80::1%eth0]:data", "fe80::1%eth0", None, b"data");
    }

    #[test]
    fn a_slash_at_the_end_is_kept_and_others_are_folded() {
        check(b"h:data/", "h", None, b"data/");
        check(b"h:data//a///b//", "h", None, b"data/a/b/");
        check(b"supersync://h/data/", "h", None, b"data/");
    }

    #[test]
    fn a_url_has_room_for_a_port_and_for_any_byte() {
        check(b"supersync://h:9/data/a%20b", "h", Some(9), b"data/a b");
        check(b"supersync://h/data/%ff%25", "h", None, b"data/\xff%");
        check(b"supersync://[::1]:7402/data", "::1", Some(7402), b"data");
        check(b"supersync://[::1]/data", "::1", None, b"data");
    }

    #[test]
    fn what_could_be_something_else_is_refused_with_what_to_write() {
        refused(b"data/x", "there is no host in it: write HOST:MODULE/PATH");
        refused(b"./a:b", "a path of this host");
        refused(b":data", "[::1]:data/today");
        refused(b"::1:data", "[::1]:data/today");
        refused(b"h::data", "[::1]:data/today");
        refused(b"h:7402:data/x", "--port 7402, or write supersync://h:7402/data/x");
        refused(b"h:", "names no module");
        refused(b"h:/srv/x", "begins with '/'");
        refused(b"h:da ta/x", "\"da ta\" is no name of a module");
        refused(b"h:data/../x", "'..'");
        refused(b"me@h:data", "no users");
        refused(b"a b:data", "\"a b\" is no name of a host");
        refused(b"-h:data", "no name of a host");
        refused(b"[::x]:data", "no IPv6 address");
        refused(b"[::1]x:data", "there is no host in it");
        refused(b"supersync://h", "names no module");
        refused(b"supersync://h:0/data", "no port");
        refused(b"supersync://h:x/data", "no port");
        refused(b"supersync:///data", "the host is missing");
        refused(b"supersync://h//data", "begins with '/'");
        refused(b"supersync://h/data%0", "two hexadecimal digits");
        refused(b"supersync://h/data/%00", "NUL");
        refused(b"supersync://me@h/data", "no users");
    }

    #[test]
    fn a_host_may_have_a_port_where_no_path_follows() {
        let check = |text: &str, name: &str, port: Option<u16>| {
            let host = Host::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(host, Host { name: name.into(), port }, "{text}");
            assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(&host), "{text} is shown as {host}");
        };
        check("h", "h", None);
        check("h:1", "h", Some(1));
        check("10.1.1.5:65535", "10.1.1.5", Some(65535));
        check("::1", "::1", None);
        check("[::1]", "::1", None);
        check("[::1]:7403", "::1", Some(7403));
        for bad in ["", ":1", "h:", "h:0", "h:65536", "h:1:2", "[::1", "[::1]1", "a/b", "me@h"] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_ports_are_one_too_many() {
        let host = Host::parse("h:9").expect("valid");
        assert_eq!(host.port_or(None, 1), Ok(9));
        assert_eq!(host.port_or(Some(9), 1), Ok(9));
        assert!(host.port_or(Some(8), 1).expect_err("two").contains("9 in \"h:9\" and 8 in --port"));
        assert_eq!(Host::parse("h").expect("valid").port_or(Some(8), 1), Ok(8));
        assert_eq!(Host::parse("h").expect("valid").port_or(None, 1), Ok(1));
    }

    #[test]
    fn a_remote_is_shown_as_it_can_be_typed() {
        for text in ["h:data/a", "[::1]:data/", "supersync://h:9/data", "supersync://[::1]:9/data/x"] {
            assert_eq!(Remote::parse(OsStr::new(text)).expect("valid").to_string(), text);
        }
    }
}
