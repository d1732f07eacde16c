//! Holds what a trader wants, and what it has marked, against its `remote/`.

use super::NodeError;
use super::problems::Subject;
use super::site::{FIRST, Site};
use crate::config::{RoleConfig, Trader};
use crate::engine::Store;
use crate::limits;
use crate::store::{Done, Root, SegmentSpec, scan};
use crate::transfer::ObjectState;
use crate::units::{ByteCount, ObjectName};
use crate::wire::duplex::check_name_fits;

impl Site {
    /// Puts on the list what is to be fetched: the segments of the specification, or else whatever the peer has. What
    /// is here from earlier is told, marked and whole.
    pub(super) fn want_objects(&self) -> Result<(), NodeError> {
        let config = self.config();
        let RoleConfig::Trader(Trader { store: Some(store), .. }) = &config.role else { return Ok(()) };
        let Store::Remote(root) = &self.stores[usize::from(FIRST.0)] else { return Ok(()) };
        let packet_len = config.packet_len;
        let (names, size) = match &store.segments {
            Some(segments) => {
                let spec = SegmentSpec::new(&segments.pattern, segments.object_bytes())?;
                (spec.names, Some(spec.size))
            }
            None if config.blocks => (scan(root)?.objects.into_iter().map(|(name, _)| name).collect(), None),
            None => {
                tracing::warn!("no store.segments in the config and no blocks: nothing is fetched, local/ is served");
                return Ok(());
            }
        };
        let (mut wants, mut misnamed) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            if let Err(error) = check_name_fits(&name, packet_len) {
                misnamed.push(error.to_string());
                continue;
            }
            let found = root.size_of(&name).ok().flatten();
            let whole = size.or(found).filter(|&size| match look(root, &name, size) {
                Looked::Whole => true,
                Looked::Lie(lie) => {
                    take_back(root, &name, &lie);
                    false
                }
                Looked::Unmarked | Looked::Other | Looked::Unknown => false,
            });
            let marked = whole.and_then(|size| Some((size, root.marked_root(&name).ok().flatten()?)));
            wants.push((name, whole.is_some(), marked));
        }
        misnamed.truncate(limits::PROBLEMS_SHOWN_MAX);
        self.tell_problems(Subject::Wanted, misnamed);
        self.engine().with_flows(|flows, now| {
            let flow = flows.at(FIRST);
            flow.fetch_listed_only(size.is_some());
            for (name, present, marked) in wants {
                if size.is_some() {
                    flow.want(name.clone(), size, present);
                }
                if let Some((size, root)) = marked {
                    flow.have(name, size, root);
                }
            }
            flow.share_out(now);
        });
        Ok(())
    }

    /// Fetches again what was marked and is no longer there, whole and marked.
    pub(super) fn check_remote(&self) {
        let Store::Remote(root) = &self.stores[usize::from(FIRST.0)] else { return };
        let present: Vec<(ObjectName, ByteCount)> = self.engine().with_flows(|flows, _| {
            let objects = flows.at(FIRST).objects();
            let present = objects.filter_map(|(name, state, _, _)| match state {
                ObjectState::Present { size } => Some((name.clone(), size)),
                _ => None,
            });
            present.collect()
        });
        for (name, size) in present {
            if self.is_ending() {
                return;
            }
            let looked = look(root, &name, size);
            if matches!(looked, Looked::Whole | Looked::Unknown) {
                continue;
            }
            // What has been replaced meanwhile is not what was looked at.
            let is_missed = self.engine().with_flows(|flows, _| flows.at(FIRST).want_again(&name, size));
            if let Looked::Lie(lie) = looked
                && is_missed
            {
                take_back(root, &name, &lie);
            }
        }
    }
}

/// What there is of an object that should be here with a certain size.
enum Looked {
    /// It is marked and has that size.
    Whole,
    /// It has no marker.
    Unmarked,
    /// It is marked, rightly, with another size.
    Other,
    /// Its marker is not true of what is here.
    Lie(String),
    /// That cannot be told now.
    Unknown,
}

/// Changes nothing: what is here of an object stays until another version of it takes its place.
fn look(root: &Root, name: &ObjectName, size: ByteCount) -> Looked {
    match root.is_done(name) {
        Ok(Done::Yes(found)) if found == size => Looked::Whole,
        Ok(Done::Yes(found)) => {
            tracing::warn!(object = %name, "is here with {found}, which should be {size}: it is fetched again");
            Looked::Other
        }
        Ok(Done::MarkerMissing) => Looked::Unmarked,
        Ok(Done::MarkerDamaged) => Looked::Lie("has a damaged marker".into()),
        Ok(Done::FileMissing) => Looked::Lie("is marked, but its file is gone".into()),
        Ok(Done::SizeDiffers { marked, found }) => Looked::Lie(format!("is marked with {marked}, but has {found}")),
        Err(error) => {
            tracing::warn!(object = %name, "cannot be looked at: {error}");
            Looked::Unknown
        }
    }
}

/// Removes a marker that is not true.
fn take_back(root: &Root, name: &ObjectName, lie: &str) {
    tracing::warn!(object = %name, "{lie}: it is fetched again");
    if let Err(error) = root.unmark(name) {
        tracing::warn!(object = %name, "{error}");
    }
}
