//! What a node says of those who come to fetch by name, to push and to pull.

use tokio::time::Instant;

use super::links::{Passed, Sample};
use super::site::{Site, lock};
use crate::control::ClientStatus;
use crate::engine::session::ServedView;

impl Site {
    /// Everyone who is being served now.
    pub(super) fn clients(&self) -> Vec<ClientStatus> {
        let links = lock(&self.clients).clone();
        let (views, sessions) = (self.engine().links(), self.engine().sessions());
        let rates = lock(&self.rates);
        let rate = |sample: Option<&Sample>| sample.map_or((0.0, 0.0), |sample| (sample.rate_in, sample.rate_out));
        let now = self.engine().now();
        let named = links.iter().filter_map(|link| Some((link, views.get(link)?))).map(|(link, view)| {
            let (rate_in, rate_out) = rate(rates.links.get(link));
            ClientStatus {
                protocol: "named".into(),
                address: view.address.clone(),
                doing: match view.asked {
                    0 => "fetch".into(),
                    files => format!("fetch, {files} files asked for"),
                },
                connections: 1,
                since_seconds: now.since(view.since).as_secs(),
                rate_in,
                rate_out,
                payload_in: view.counters.payload_in,
                payload_out: view.counters.payload_out,
            }
        });
        let of_session = |view: &ServedView| {
            let (rate_in, rate_out) = rate(rates.sessions.get(&view.id));
            let Passed { payload_in, payload_out, .. } = Passed::from(view);
            let verb = if view.is_push { "push" } else { "pull" };
            ClientStatus {
                protocol: "session".into(),
                address: view.address.clone(),
                doing: format!("{verb} {}", view.path),
                connections: view.connections as u64,
                since_seconds: view.age.as_secs(),
                rate_in,
                rate_out,
                payload_in,
                payload_out,
            }
        };
        named.chain(sessions.iter().map(of_session)).collect()
    }

    /// Takes the rates of sessions anew.
    pub(super) fn sample_sessions(&self, now: Instant) {
        let sessions = self.engine().sessions();
        let rates = &mut lock(&self.rates).sessions;
        rates.retain(|id, _| sessions.iter().any(|view| view.id == *id));
        for view in &sessions {
            let passed = Passed::from(view);
            rates.entry(view.id).or_insert_with(|| Sample::new(now, passed)).update(now, passed);
        }
    }
}

impl From<&ServedView> for Passed {
    fn from(view: &ServedView) -> Self {
        if view.is_push { Self::payload(view.payload, 0) } else { Self::payload(0, view.payload) }
    }
}
