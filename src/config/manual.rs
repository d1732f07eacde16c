//! Holds the manual page of the config's format against the keys that there are.

use super::meaning::KEYS;
use crate::limits;

const PAGE: &str = include_str!("../../deploy/man/supersync.toml.5");

/// The section of the page that tells of the keys of `section`.
fn heading(section: &str) -> &str {
    match section {
        "" => ".SH \"AT THE TOP\"\n",
        "control" => ".SH [control]\n",
        "store" => ".SH [store]\n",
        "segments" => ".SH \"segments OF [store]\"\n",
        "module" => ".SH [[module]]\n",
        "listen" => ".SH [[listen]]\n",
        "spool" => ".SH [spool]\n",
        "peer" => ".SH [[peer]]\n",
        other => panic!("the page has no section for the keys of {other:?}"),
    }
}

/// Each key of a section with what the page says of it.
fn told(section: &str) -> Vec<(&'static str, &'static str)> {
    let start = PAGE.find(heading(section)).unwrap_or_else(|| panic!("the page has no {}", heading(section)));
    let text = &PAGE[start + heading(section).len()..];
    let text = text.find(".SH ").map_or(text, |end| &text[..end]);
    text.split(".TP\n.B ").skip(1).filter_map(|entry| entry.split_once('\n')).collect()
}

#[test]
fn the_manual_page_tells_every_key_and_no_other() {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    for section in sections {
        let known: Vec<&str> = KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
        let told = told(section);
        assert_eq!(told.iter().map(|(key, _)| *key).collect::<Vec<_>>(), known, "of {section:?}, in the same order");
        for (key, text) in told.iter().filter(|_| !section.is_empty()) {
            assert!(text.contains("Default:") || text.contains("Must be there."), "{section}.{key}: {text}");
        }
    }
}

#[test]
fn the_manual_page_tells_the_bounds() {
    let check = |section: &str, key: &str, bounds: &[u64]| {
        let told = told(section);
        let (_, text) = told.iter().find(|(name, _)| *name == key).expect("a key of the page");
        for bound in bounds {
            let mut numbers = text.split(|c: char| !c.is_ascii_digit());
            assert!(numbers.any(|number| number == bound.to_string()), "{section}.{key} has no {bound}: {text}");
        }
    };
    let packets = [limits::PACKET_BYTES_MIN, limits::PACKET_BYTES_MAX, limits::PACKET_BYTES_DEFAULT];
    check("", "packet_bytes", &packets.map(u64::from));
    check("", "workers", &[1, limits::WORKERS_MAX as u64]);
    check("", "congestion", &[limits::CONGESTION_BYTES_MAX as u64]);
    check("", "module", &[limits::MODULES_MAX as u64]);
    check("", "listen", &[1, limits::LISTENERS_MAX as u64]);
    check("", "peer", &[2]);
    check("control", "socket", &[limits::SOCKET_PATH_BYTES_MAX as u64]);
    check("module", "name", &[limits::MODULE_NAME_BYTES_MAX as u64]);
    check("module", "allow", &[limits::ALLOW_MAX as u64]);
    check("listen", "allow", &[limits::ALLOW_MAX as u64]);
    check("spool", "max_bytes", &[limits::SPOOL_BYTES_DEFAULT]);
    check("peer", "links", &[limits::LINKS_MAX as u64]);
    assert!(PAGE.contains(&format!("at most {} bytes.", limits::CONFIG_BYTES_MAX)));
    assert!(PAGE.contains(&format!("up to {} letters", limits::NODE_NAME_BYTES_MAX)));
}
