//! `supersyncd config dropin`: the systemd drop-in that grants a node the directories of its config.
//!
//! The unit `supersyncd@.service` lets a node write to its own directories, and hides the homes of people and what
//! others have in /tmp. What the config names elsewhere is granted here, and awaited where it is a mount
//! (systemd.exec(5), systemd.unit(5)).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{DaemonError, answer};
use crate::config::{self, Config, HttpAddress, RoleConfig};
use crate::control::{RUN_DIR, SOCKET_NAME};
use crate::exit;

/// What `ProtectHome=` of the unit hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Of what `PrivateTmp=` of the unit gives the node its own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

pub(super) fn run(file: &Path) -> Result<u8, DaemonError> {
    let config = config::load(file)?;
    let instance = file.file_stem().unwrap_or_default().to_string_lossy();
    answer(&dropin(&config, &instance)?)?;
    Ok(exit::OK)
}

/// A directory that a node uses, and whether it writes there.
struct Use<'a> {
    path: &'a Path,
    writes: bool,
}

/// The drop-in of `supersyncd@INSTANCE.service`.
fn dropin(config: &Config, instance: &str) -> Result<String, DaemonError> {
    let own = [
        Path::new("/var/lib/supersync").join(instance),
        Path::new(RUN_DIR).join(instance),
        PathBuf::from("/var/spool/supersync"),
    ];
    let is_own = |path: &Path| own.iter().any(|own| path.starts_with(own));
    let mut used: Vec<Use<'_>> = uses(config).into_iter().filter(|used| !is_own(used.path)).collect();
    used.sort_by_key(|used| (used.path, !used.writes));
    used.dedup_by_key(|used| used.path);

    let mut out = format!("# What supersyncd@{instance} needs, made by `supersyncd config dropin`.\n");
    if used.is_empty() && config.control.socket == own[1].join(SOCKET_NAME) {
        out += "# Nothing: its config names no directory that the unit does not give it.\n";
        return Ok(out);
    }
    if !used.is_empty() {
        let paths = used.iter().map(|used| word(used.path)).collect::<Result<Vec<_>, _>>()?;
        line(&mut out, "# These directories must be there when it starts.\n[Unit]", "");
        line(&mut out, "RequiresMountsFor=", &paths.join(" "));
    }
    line(&mut out, "\n[Service]", "");
    if used.iter().any(|used| is_below(used.path, &HOMES)) {
        line(&mut out, "ProtectHome=tmpfs", "");
    }
    for Use { path, writes } in used {
        let hidden = is_below(path, &HOMES) || is_below(path, &TEMPORARY);
        match (hidden, writes) {
            // A colon would part where it is from where it is seen.
            (true, true) => line(&mut out, "BindPaths=", &word(path)?.replace(':', "\\:")),
            (true, false) => line(&mut out, "BindReadOnlyPaths=", &word(path)?.replace(':', "\\:")),
            (false, true) => line(&mut out, "ReadWritePaths=", &word(path)?),
            // All else is there to be read.
            (false, false) => {}
        }
    }
    if config.control.socket != own[1].join(SOCKET_NAME) {
        let socket = word(&config.control.socket)?.replace('$', "$$");
        line(&mut out, "ExecReload=\nExecReload=/usr/bin/supersyncctl --socket ", &format!("{socket} reload"));
    }
    Ok(out)
}

fn uses(config: &Config) -> Vec<Use<'_>> {
    let mut uses = vec![Use { path: &config.state_dir, writes: true }];
    let http = match &config.control.http {
        Some(HttpAddress::Socket(socket)) => Some(socket),
        Some(HttpAddress::Loopback(_)) | None => None,
    };
    let sockets = [Some(&config.control.socket), http].into_iter().flatten();
    uses.extend(sockets.filter_map(|socket| socket.parent()).map(|path| Use { path, writes: true }));
    match &config.role {
        RoleConfig::Trader(trader) => {
            if let Some(store) = &trader.store {
                uses.push(Use { path: &store.local, writes: false });
                uses.push(Use { path: &store.remote, writes: true });
            }
            uses.extend(trader.modules.iter().map(|module| Use { path: &module.path, writes: !module.read_only }));
        }
        RoleConfig::Exchange(exchange) => uses.push(Use { path: &exchange.spool.path, writes: true }),
    }
    uses
}

fn is_below(path: &Path, directories: &[&str]) -> bool {
    directories.iter().any(|directory| path.starts_with(directory))
}

/// A path as a word of a unit file: quoted, without specifiers (systemd.syntax(7)).
fn word(path: &Path) -> Result<String, DaemonError> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    let text = text.ok_or_else(|| DaemonError::NotForUnits(path.to_owned()))?.replace('%', "%%");
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%".contains(c);
    if text.chars().all(is_plain) {
        return Ok(text);
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn line(out: &mut String, key: &str, value: &str) {
    writeln!(out, "{key}{value}").expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, instance: &str) -> String {
        dropin(&config::parse(text, "test").expect("valid"), instance).expect("it can be written")
    }

    const TRADER: &str = "role = \"trader\"\nname = \"trader1\"\n[store]\nlocal = \"LOCAL\"\nremote = \"REMOTE\"\n\
                          [[listen]]\naddress = \"127.0.0.1:0\"\n";

    fn trader(local: &str, remote: &str) -> String {
        of(&TRADER.replace("LOCAL", local).replace("REMOTE", remote), "trader1")
    }

    #[test]
    fn what_is_written_to_is_granted_and_what_is_read_is_awaited() {
        let text = trader("/srv/a/local", "/srv/a/remote");
        assert!(text.contains("\n[Unit]\nRequiresMountsFor=/srv/a/local /srv/a/remote\n"), "{text}");
        assert!(text.ends_with("\n[Service]\nReadWritePaths=/srv/a/remote\n"), "{text}");
    }

    #[test]
    fn a_node_needs_nothing_for_its_own_directories() {
        let text = trader("/var/lib/supersync/trader1/local", "/var/lib/supersync/trader1/remote");
        assert!(!text.contains('['), "{text}");
        let text = of(&TRADER.replace("LOCAL", "/var/lib/supersync/x/local").replace("REMOTE", "/srv/r"), "other");
        let named =
            "ReadWritePaths=/run/supersync/trader1\nReadWritePaths=/srv/r\nReadWritePaths=/var/lib/supersync/trader1\n";
        assert!(text.contains(named), "its name is not that of the unit: {text}");
        assert!(
            text.contains(
                "ExecReload=\nExecReload=/usr/bin/supersyncctl --socket /run/supersync/trader1/control.sock reload\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_the_unit_hides_is_bound() {
        let text = trader("/home/data/local", "/tmp/remote");
        let bound = "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/data/local\nBindPaths=/tmp/remote\n";
        assert!(text.contains(bound), "{text}");
    }

    #[test]
    fn strange_paths_are_quoted_or_refused() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(word(Path::new(path)).ok().as_deref(), expected, "{path}");
        };
        check("/srv/100%", Some("/srv/100%%"));
        check("/srv/my data", Some("\"/srv/my data\""));
        check("/srv/a\"b:c\\d", Some("\"/srv/a\\\"b:c\\\\d\""));
        check("/srv/a\nReadWritePaths=/", None);
    }
}
