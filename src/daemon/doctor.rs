//! `supersyncd doctor`: what this host offers, each ring feature tried for real, and what to change.
//!
//! With `--json` one object, `supersync.doctor/1`; it changes by addition only:
//!
//! ```text
//! { "schema": "supersync.doctor/1",
//!   "usable": bool                       a node would run here: true, by one engine or the other
//!   "engine": string                     the one that engine = "auto" takes: "io_uring" or "blocking"
//!   "advice": [ string, .. ]             what to change, the most urgent first
//!   "kernel": string, "io_uring_disabled": string?,       the sysctl, where the kernel has it
//!   "memlock": limit, "open_files": limit,
//!   "congestion": string?                default TCP congestion control
//!   "congestion_available": string?,
//!   "clock": { "source": string?, "synchronised": bool? } null where that cannot be known
//!   "features": [ { "name": string, "needed": bool, "ok": bool, "why": string? }, .. ] }
//!
//! limit: { "soft": integer?, "hard": integer? }           null: unlimited
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{DaemonError, answer};
use crate::uring::DriverKind;
use crate::uring::probe::{Limit, Report, probe};
use crate::{exit, limits};

/// Made by systemd-timesyncd at the first synchronisation of a boot (systemd-timesyncd.service(8)).
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// Everything that is looked at.
#[derive(Debug)]
struct Host {
    report: Report,
    congestion: Option<String>,
    congestion_available: Option<String>,
    clock_source: Option<String>,
    /// systemd-timesyncd says so. Other services that set the clock leave no such trace: then it is not known.
    clock_synchronised: bool,
}

pub(super) fn run(json: bool) -> Result<u8, DaemonError> {
    let host = Host::look();
    answer(&if json { format!("{}\n", host.json()) } else { host.text() })?;
    Ok(exit::OK)
}

impl Host {
    fn look() -> Self {
        Self {
            report: probe(),
            congestion: line_of("/proc/sys/net/ipv4/tcp_congestion_control"),
            congestion_available: line_of("/proc/sys/net/ipv4/tcp_available_congestion_control"),
            clock_source: line_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            clock_synchronised: Path::new(TIMESYNC).exists(),
        }
    }

    /// What `engine = "auto"` comes to.
    fn engine(&self) -> DriverKind {
        if self.report.usable().is_ok() { DriverKind::Uring } else { DriverKind::Blocking }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let report = &self.report;
        let mut line = |key: &str, value: &str| {
            writeln!(out, "{key:<14}{value}").expect("a String takes all that is written to it");
        };
        line("kernel", &report.kernel);
        line("memlock", &format!("{} bytes", report.memlock));
        line("open files", &report.open_files.to_string());
        line("congestion", self.congestion.as_deref().unwrap_or("not known"));
        line("clock", &self.clock());
        line("ring features", "each tried just now; * the engine needs it");
        for feature in &report.features {
            let (mark, result) = (if feature.needed { '*' } else { ' ' }, &feature.result);
            let said = result.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "ok".to_owned());
            line("", &format!("{mark} {:<36} {said}", feature.name));
        }
        let engine = self.engine();
        match report.usable() {
            Ok(()) => line("engine", &engine.to_string()),
            Err(why) => line("engine", &format!("{engine}, for io_uring does not work: {why}")),
        }
        for advice in self.advice() {
            line("change", &advice);
        }
        out
    }

    fn clock(&self) -> String {
        let source = self.clock_source.as_deref().unwrap_or("not known");
        match self.clock_synchronised {
            true => format!("synchronised; source {source}"),
            false => {
                format!("synchronised: not known here, `timedatectl` or `chronyc tracking` may tell; source {source}")
            }
        }
    }

    fn json(&self) -> Value {
        let report = &self.report;
        let features = report.features.iter().map(|feature| {
            let why = feature.result.as_ref().err();
            json!({ "name": feature.name, "needed": feature.needed, "ok": why.is_none(), "why": why })
        });
        json!({
            "schema": "supersync.doctor/1",
            "usable": true,
            "engine": self.engine().to_string(),
            "advice": self.advice(),
            "kernel": report.kernel,
            "io_uring_disabled": report.io_uring_disabled,
            "memlock": limit(report.memlock),
            "open_files": limit(report.open_files),
            "congestion": self.congestion,
            "congestion_available": self.congestion_available,
            "clock": { "source": self.clock_source, "synchronised": self.clock_synchronised.then_some(true) },
            "features": features.collect::<Vec<Value>>(),
        })
    }

    /// What to change on this host, the most urgent first.
    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let report = &self.report;
        if let Err(why) = report.usable() {
            advice.push(match report.io_uring_disabled.as_deref() {
                Some("2") => "nobody may use io_uring here: sysctl kernel.io_uring_disabled=0".to_owned(),
                Some("1") => "only privileged processes may use io_uring here: sysctl kernel.io_uring_disabled=0, \
                              or put the node's user into the group of sysctl kernel.io_uring_group"
                    .to_owned(),
                _ if why.to_lowercase().contains("memory") => {
                    format!(
                        "let the node lock more memory than {} bytes: LimitMEMLOCK=, ulimit -l",
                        report.memlock.soft
                    )
                }
                _ => "run Linux 6.1 or later; in a container, allow the system calls io_uring_setup, io_uring_enter \
                      and io_uring_register in its seccomp profile"
                    .to_owned(),
            });
        }
        if report.open_files.soft < limits::LINKS_MAX as u64 {
            let soft = report.open_files.soft;
            advice.push(format!("{soft} open files are few for a node with many links: LimitNOFILE=, ulimit -n"));
        }
        advice
    }
}

fn limit(limit: Limit) -> Value {
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    json!({ "soft": bound(limit.soft), "hard": bound(limit.hard) })
}

fn line_of(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::probe::Feature;

    fn host(result: Result<(), String>, disabled: Option<&str>, open_files: u64) -> Host {
        let unlimited = Limit { soft: u64::MAX, hard: u64::MAX };
        Host {
            report: Report {
                kernel: "6.18.0".to_owned(),
                io_uring_disabled: disabled.map(str::to_owned),
                memlock: unlimited,
                open_files: Limit { soft: open_files, hard: 1 << 20 },
                features: vec![
                    Feature { name: "RECV", needed: true, result },
                    Feature { name: "SEND_ZC", needed: false, result: Err("not here".to_owned()) },
                ],
            },
            congestion: Some("cubic".to_owned()),
            congestion_available: None,
            clock_source: None,
            clock_synchronised: false,
        }
    }

    #[test]
    fn a_host_that_lacks_only_what_is_optional_is_usable() {
        let host = host(Ok(()), Some("0"), 65_536);
        let text = host.text();
        assert!(text.contains("engine        io_uring\n"), "{text}");
        assert!(text.contains("refused: not here"), "{text}");
        assert!(!text.contains("change"), "{text}");
        let json = host.json();
        assert_eq!((&json["usable"], &json["engine"]), (&json!(true), &json!("io_uring")));
        assert_eq!(json["features"][1], json!({ "name": "SEND_ZC", "needed": false, "ok": false, "why": "not here" }));
        assert_eq!(json["memlock"], json!({ "soft": null, "hard": null }));
        assert_eq!(json["clock"]["synchronised"], json!(null));
    }

    #[test]
    fn advice_names_what_stands_in_the_way() {
        let check = |why: &str, disabled: Option<&str>, expected: &str| {
            let host = host(Err(why.to_owned()), disabled, 65_536);
            assert!(host.advice()[0].contains(expected), "{:?}", host.advice());
            let engine = format!("engine        blocking, for io_uring does not work: RECV: {why}\n");
            assert!(host.text().contains(&engine), "{}", host.text());
            assert_eq!(host.json()["engine"], json!("blocking"));
        };
        check("not permitted", Some("2"), "sysctl kernel.io_uring_disabled=0");
        check("not permitted", Some("1"), "io_uring_group");
        check("not permitted", Some("0"), "seccomp");
        check("function not implemented", None, "Linux 6.1");
        check("Cannot allocate memory", Some("0"), "LimitMEMLOCK");
        assert!(host(Ok(()), None, 256).advice()[0].contains("LimitNOFILE"));
    }
}
