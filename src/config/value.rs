//! Texts of a config that mean something: each `parse` takes one and gives a value, or says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use bytesize::ByteSize;
use toml::de::DeValue;

use super::model::{Cidr, CidrError, Delete, EngineChoice, HttpAddress, Protocol, Remote, Role};
use super::read::{Refusal, integer, nearest, shown};
use crate::limits;
use crate::store::Pattern;
use crate::units::{ByteCount, NodeName};

/// The role of a node.
pub(super) fn role(text: &str) -> Result<Role, Refusal> {
    choice(text, &[("trader", Role::Trader), ("exchange", Role::Exchange)])
}

/// What moves the bytes.
pub(super) fn engine(text: &str) -> Result<EngineChoice, Refusal> {
    choice(text, &EngineChoice::NAMED)
}

/// What is spoken on a link.
pub(super) fn protocol(text: &str) -> Result<Protocol, Refusal> {
    let choices = [("duplex", Protocol::Duplex), ("named", Protocol::Named), ("session", Protocol::Session)];
    choice(text, &choices)
}

/// What becomes of an object that the far trader has no more.
pub(super) fn delete(text: &str) -> Result<Delete, Refusal> {
    choice(text, &[("keep", Delete::Keep), ("mirror", Delete::Mirror)])
}

/// The name of a node, or of a peer. It starts with a letter or a digit, so that it is never taken for an option of
/// `supersyncctl` and its directories are never hidden.
pub(super) fn node_name(text: &str) -> Result<NodeName, Refusal> {
    let fix = || {
        let max = limits::NODE_NAME_BYTES_MAX;
        format!("write up to {max} letters, digits, '.', '_' or '-', the first a letter or a digit")
    };
    match text.parse::<NodeName>() {
        Err(error) => Err(Refusal::new(error.to_string(), fix())),
        Ok(name) if text.starts_with(|c: char| c.is_ascii_alphanumeric()) => Ok(name),
        Ok(_) => Err(Refusal::new("the node's name starts with neither a letter nor a digit", fix())),
    }
}

/// The name of a module: a component of a path that needs no quotes in a shell or a URL.
pub(super) fn module_name(text: &str) -> Result<String, Refusal> {
    let max = limits::MODULE_NAME_BYTES_MAX;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if matches!(text, "" | "." | "..") || text.len() > max || !text.chars().all(fits) {
        let what = format!("\"{}\" is no name of a module", shown(text));
        return Err(Refusal::new(what, format!("write up to {max} letters, digits, '.', '_' or '-'")));
    }
    Ok(text.to_owned())
}

/// An absolute path, without `.` and with one `/` between its components.
pub(super) fn path(text: &str) -> Result<PathBuf, Refusal> {
    let path = Path::new(text);
    if text.contains('\0') {
        return Err(Refusal::new("the path contains a NUL byte", "remove it"));
    }
    if !path.is_absolute() {
        let what = if text.is_empty() { "the path is empty" } else { "the path is relative" };
        return Err(Refusal::new(what, "write the whole path from / on: a service has no directory of its own"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Refusal::new("the path has a '..' component", "write the path that is meant"));
    }
    // Two directories are compared by their components, so each must have one spelling only.
    Ok(path.components().collect())
}

/// The path of a unix socket.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Refusal> {
    let socket = path(text)?;
    match socket.as_os_str().len() {
        bytes if bytes > limits::SOCKET_PATH_BYTES_MAX => Err(Refusal::new(
            format!("the path has {bytes} bytes; that of a unix socket has at most {}", limits::SOCKET_PATH_BYTES_MAX),
            "write a shorter one, or give the node a shorter name",
        )),
        _ => Ok(socket),
    }
}

/// Where page, metrics and health are served: a loopback address and a port, or the path of a unix socket.
pub(super) fn http_address(text: &str) -> Result<HttpAddress, Refusal> {
    const FORM: &str = "write \"127.0.0.1:7190\", \"[::1]:7190\", or the path of a unix socket";
    if text.starts_with('/') {
        return socket_path(text).map(HttpAddress::Socket);
    }
    let (address, port) = match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => return Ok(HttpAddress::Loopback(address)),
        Ok(address) => (address.ip(), address.port()),
        Err(_) => return Err(Refusal::new(format!("\"{}\" is not an address and a port", shown(text)), FORM)),
    };
    Err(Refusal::new(
        format!("{address} is not a loopback address, and whoever can reach it could look at this node"),
        format!(
            "write \"127.0.0.1:{port}\", and reach it from elsewhere through `ssh -L {port}:127.0.0.1:{port} HOST`"
        ),
    ))
}

/// `ADDRESS:PORT`, where port 0 is allowed.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        let what = format!("\"{}\" is not an address and a port", shown(text));
        Refusal::new(what, "write \"10.1.1.5:7401\", \"0.0.0.0:7401\" or \"[::]:7401\"")
    })
}

/// An address of this host.
pub(super) fn address(text: &str) -> Result<IpAddr, Refusal> {
    let what = || format!("\"{}\" is not an address", shown(text));
    text.parse().map_err(|_| Refusal::new(what(), "write an address of this host without a port, as \"10.1.1.6\""))
}

/// Who may connect.
pub(super) fn cidr(text: &str) -> Result<Cidr, Refusal> {
    Cidr::parse(text).map_err(|error| {
        let fix = match error {
            CidrError::Form => "write \"10.1.0.0/16\", \"fd00::/8\" or \"10.1.1.5\"".to_owned(),
            CidrError::HostBits(network) => match text.split_once('/') {
                Some((address, _)) => format!("write \"{network}\", or \"{}\" for this one alone", shown(address)),
                None => format!("write \"{network}\""),
            },
        };
        Refusal::new(format!("\"{}\" is not a network: {error}", shown(text)), fix)
    })
}

/// `HOST:PORT` to dial.
pub(super) fn remote(text: &str) -> Result<Remote, Refusal> {
    const FORM: &str = "write \"10.1.1.5:7401\", \"[fd00::5]:7401\" or \"trader1.example:7401\"";
    let remote = match text.parse::<SocketAddr>() {
        Ok(address) => Remote::Address(address),
        Err(_) => {
            let (name, port) = text
                .rsplit_once(':')
                .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
                .filter(|(name, _)| is_host_name(name))
                .ok_or_else(|| Refusal::new(format!("\"{}\" is not a host and a port", shown(text)), FORM))?;
            Remote::Host { name: name.to_owned(), port }
        }
    };
    match &remote {
        Remote::Address(address) if address.port() == 0 => Err(Refusal::new("nobody listens on port 0", FORM)),
        Remote::Address(address) if address.ip().is_unspecified() => {
            Err(Refusal::new(format!("{} is no address of a host", address.ip()), FORM))
        }
        Remote::Host { port: 0, .. } => Err(Refusal::new("nobody listens on port 0", FORM)),
        _ => Ok(remote),
    }
}

/// A number of bytes: an integer, or a text as "4GiB" or "1.5MB"; at least 1.
pub(super) fn byte_count(value: &DeValue<'_>) -> Result<ByteCount, Refusal> {
    const FORM: &str = "write a number of bytes, or a text as \"4GiB\" or \"1.5MB\"";
    let bytes = match value {
        DeValue::String(text) => {
            text.parse::<ByteSize>()
                .map_err(|_| Refusal::new(format!("\"{}\" is not a number of bytes", shown(text)), FORM))?
                .0
        }
        DeValue::Integer(_) => integer(value)?,
        other => return Err(Refusal::new(format!("this is of type {}", other.type_str()), FORM)),
    };
    match bytes {
        0 => Err(Refusal::new("0 bytes are too few", FORM)),
        // The longest a file can be, and what a TOML integer can say.
        1..=0x7fff_ffff_ffff_ffff => Ok(ByteCount(bytes)),
        _ => Err(Refusal::new(format!("this is more than the {} bytes that are possible", i64::MAX), FORM)),
    }
}

/// The name of a TCP congestion control.
pub(super) fn congestion(text: &str) -> Result<String, Refusal> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if text.is_empty() || text.len() > limits::CONGESTION_BYTES_MAX || !text.chars().all(fine) {
        let what = format!("\"{}\" is not the name of a congestion control", shown(text));
        return Err(Refusal::new(what, "write one that `sysctl net.ipv4.tcp_available_congestion_control` lists"));
    }
    Ok(text.to_owned())
}

/// A pattern of names, which the store understands.
pub(super) fn pattern(text: &str) -> Result<String, Refusal> {
    match Pattern::parse(text).and_then(|pattern| pattern.expand()) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Refusal::new(error.to_string(), "write names with ranges, as \"stock{1..10}_{1..50}\"")),
    }
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Refusal> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let fix = match nearest(text, choices.iter().map(|(name, _)| *name)) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => {
            let quoted: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            format!("write {}", quoted.join(" or "))
        }
    };
    Err(Refusal::new(format!("\"{}\" is not a choice", shown(text)), fix))
}

/// RFC 1123, and `_`, which is found in practice. A last label of digits alone is a mistyped address.
fn is_host_name(name: &str) -> bool {
    let label_is_fine = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label_is_fine) && !last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_addresses_or_host_names_with_a_port() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(remote(text).ok().map(|r| r.to_string()).as_deref(), expected, "{text:?}");
        };
        check("10.1.1.5:7401", Some("10.1.1.5:7401"));
        check("[fd00::5]:7401", Some("[fd00::5]:7401"));
        check("trader1.example:7401", Some("trader1.example:7401"));
        check("localhost:1", Some("localhost:1"));
        for bad in [
            "10.1.1.5",
            "10.1.1.300:7401",
            "10.1.1.5:0",
            "a:0",
            "0.0.0.0:7401",
            "a b:1",
            ":1",
            "a:70000",
            "fd00::5:7401",
            "-a:1",
            "a..b:1",
            "",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn node_names_fit_into_paths_and_command_lines() {
        let longest = "n".repeat(limits::NODE_NAME_BYTES_MAX);
        for good in ["trader1", "t-1.example_x", "1", &longest] {
            assert!(node_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-x", ".x", "a/b", "a b", "h\u{e4}ndler", &format!("{longest}n")] {
            assert!(node_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn byte_counts_are_integers_or_texts_with_units() {
        let check = |text: &str, expected: Option<u64>| {
            let value = DeValue::parse(text).expect("valid TOML");
            assert_eq!(byte_count(value.get_ref()).ok(), expected.map(ByteCount), "{text}");
        };
        check("4096", Some(4096));
        check("0x10", Some(16));
        check("\"4GiB\"", Some(4 << 30));
        check("\"1.5MB\"", Some(1_500_000));
        check("\"12\"", Some(12));
        for bad in [
            "0",
            "-1",
            "\"0B\"",
            "\"99EiB\"",
            "\"1.5.5MB\"",
            "\"-1MB\"",
            "\"many\"",
            "\"\"",
            "1.5",
            "true",
            "99999999999999999999",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_pattern_is_one_that_the_store_takes() {
        for good in ["stock{1..10}_{1..50}", "one"] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        for bad in ["", "a{", "a}", "{{1..2}}", "}{", "{a,b}", "a{10..1}", "a{1..12}{1..12}"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_absolute_and_have_one_spelling() {
        assert_eq!(path("/a//b/./c/").ok(), Some(PathBuf::from("/a/b/c")));
        assert_eq!(path("/a//b/./c/").ok().map(|p| p.into_os_string()), Some("/a/b/c".into()));
        for bad in ["", "a", "./a", "~/a", "/a/../b", "/a\0b"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }
}
