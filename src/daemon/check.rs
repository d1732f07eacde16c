//! `supersyncd check`: is a config right, and does this host fit it.

use std::fmt::Write as _;
use std::path::Path;

use super::{DaemonError, answer};
use crate::config::{self, Config, Exchange, Finding, Module, RoleConfig, Severity, StoreConfig};
use crate::exit;
use crate::store::Pattern;

/// Checks `file`, and this host too where `environment` is set. What keeps a node from starting on this host is
/// [`exit::FAILED`]: the file itself is right then.
pub(super) fn run(file: &Path, environment: bool) -> Result<u8, DaemonError> {
    let config = config::load(file)?;
    let described = describe(&config, file)?;
    let findings = if environment { config::check_environment(&config) } else { Vec::new() };
    let (text, status) = verdict(file, &described, &findings);
    answer(&text)?;
    Ok(status)
}

/// What is printed about a config that is right in itself, and the exit status.
fn verdict(file: &Path, described: &str, findings: &[Finding]) -> (String, u8) {
    let mut out = String::new();
    for finding in findings {
        line(&mut out, format_args!("{finding}"));
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match errors {
        0 => line(&mut out, format_args!("{}: ok\n{described}", file.display())),
        1 => line(&mut out, format_args!("{}: the file is right; this host has 1 error", file.display())),
        _ => line(&mut out, format_args!("{}: the file is right; this host has {errors} errors", file.display())),
    }
    (out, if errors == 0 { exit::OK } else { exit::FAILED })
}

/// What the node would be, in a line or two.
fn describe(config: &Config, file: &Path) -> Result<String, DaemonError> {
    let Config { name, packet_len, .. } = config;
    match &config.role {
        RoleConfig::Trader(trader) => {
            let listen: Vec<String> = trader.listen.iter().map(|listen| listen.address.to_string()).collect();
            let store = match &trader.store {
                Some(store) => format!(
                    "serves {}, fetches into {}; {}",
                    store.local.display(),
                    store.remote.display(),
                    segments(store, config.blocks, file)?
                ),
                None => "replicates nothing".to_owned(),
            };
            let modules: String = trader.modules.iter().map(module).collect();
            let listen = listen.join(", ");
            Ok(format!("  trader {name}: {store}\n{modules}  listens on {listen}, packets of {packet_len} bytes"))
        }
        RoleConfig::Exchange(Exchange { spool, peers }) => {
            let peers = peers.iter().map(|peer| format!("{} over {}", peer.name, links(peer.links.len())));
            Ok(format!(
                "  exchange {name}: relays between {}\n  spools at most {} in {}, packets of {packet_len} bytes",
                peers.collect::<Vec<_>>().join(" and "),
                bytesize::ByteSize(spool.max_bytes.0).display().iec(),
                spool.path.display(),
            ))
        }
    }
}

/// How many there are, as the store reads the pattern.
fn segments(store: &StoreConfig, blocks: bool, file: &Path) -> Result<String, DaemonError> {
    let Some(segments) = &store.segments else {
        return Ok(if blocks { "whatever is there" } else { "nothing of its own" }.to_owned());
    };
    let failed = |source| DaemonError::Segments { file: file.to_owned(), source };
    let names = Pattern::parse(&segments.pattern).and_then(|pattern| pattern.expand()).map_err(failed)?;
    Ok(format!("{} segments of {}", names.len(), segments.object_bytes()))
}

fn module(module: &Module) -> String {
    let Module { name, path, read_only, .. } = module;
    let may = if *read_only { "read" } else { "read and written to" };
    format!("  module {name}: {} can be {may} in sessions\n", path.display())
}

fn links(count: usize) -> String {
    if count == 1 { "1 link".to_owned() } else { format!("{count} links") }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding { severity, what: "a thing".to_owned(), fix: "do it".to_owned() }
    }

    #[test]
    fn only_errors_of_the_host_make_a_check_fail() {
        let check = |severities: &[Severity], expected: u8| {
            let findings: Vec<Finding> = severities.iter().copied().map(finding).collect();
            let (text, status) = verdict(Path::new("t.toml"), "  trader t", &findings);
            assert_eq!(status, expected, "{text}");
            assert_eq!(text.contains("t.toml: ok\n  trader t\n"), expected == exit::OK, "{text}");
            assert_eq!(text.matches("a thing").count(), severities.len(), "{text}");
        };
        check(&[], exit::OK);
        check(&[Severity::Info, Severity::Warning], exit::OK);
        check(&[Severity::Info, Severity::Error], exit::FAILED);
        check(&[Severity::Error, Severity::Error], exit::FAILED);
    }

    #[test]
    fn a_template_is_described() {
        let text = config::template(config::Role::Trader);
        let described = |text: &str| {
            let config = config::parse(text, "t.toml").expect("a valid config");
            describe(&config, Path::new("t.toml")).map_err(|error| (error.exit_status(), error.to_string()))
        };
        let shown = described(text).expect("it is right");
        assert!(shown.contains("trader trader1: serves /srv/segments/local"), "{shown}");
        let with = text.replace("# segments =", "segments =");
        assert!(described(&with).expect("it is right").contains("500 segments of 24000000 bytes"));
        let sessions = concat!(
            "role = \"trader\"\nname = \"files\"\n[[module]]\nname = \"pub\"\npath = \"/srv/pub\"\n",
            "[[listen]]\naddress = \"0.0.0.0:7402\"\nprotocol = \"session\"\n"
        );
        let shown = described(sessions).expect("it is right");
        assert!(shown.contains("trader files: replicates nothing\n  module pub: /srv/pub can be read in"), "{shown}");
        let exchange = config::template(config::Role::Exchange);
        assert!(described(exchange).expect("it is right").contains("trader1 over 3 links and trader2 over 3 links"));
    }
}
