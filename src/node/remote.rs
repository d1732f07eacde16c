//! Holds what a trader wants, and what it has marked, against its `remote/`.

use super::NodeError;
use super::inventory::Batch;
use super::problems::Subject;
use super::site::{FIRST, Site};
use crate::config::{RoleConfig, Trader};
use crate::engine::Store;
use crate::limits;
use crate::store::{Done, Root, SegmentSpec, StoreError, scan_by_parts};
use crate::transfer::ObjectState;
use crate::units::{ByteCount, ObjectId, ObjectName, Root256};
use crate::wire::duplex::check_name_fits;

impl Site {
    /// Puts on the list what is to be fetched: the segments of the specification, or else whatever the peer has. What
    /// is here from earlier is told, marked and whole.
    pub(super) fn want_objects(&self) -> Result<(), NodeError> {
        let config = self.config();
        let RoleConfig::Trader(Trader { store: Some(store), .. }) = &config.role else { return Ok(()) };
        let Store::Remote(root) = &self.stores[usize::from(FIRST.0)] else { return Ok(()) };
        let (mut misnamed, mut unseen) = (Vec::new(), Unseen::default());
        match &store.segments {
            Some(segments) => {
                let spec = SegmentSpec::new(&segments.pattern, segments.object_bytes())?;
                self.engine().with_flows(|flows, _| flows.at(FIRST).fetch_listed_only(true));
                for names in spec.names.chunks(limits::SCAN_PART_OBJECTS) {
                    self.want_part(root, names.iter().cloned(), Some(spec.size), &mut misnamed, &mut unseen);
                }
            }
            None if config.blocks => {
                self.engine().with_flows(|flows, _| flows.at(FIRST).fetch_listed_only(false));
                let take = |part: Batch| {
                    let names = part.into_iter().map(|(name, _)| name);
                    self.want_part(root, names, None, &mut misnamed, &mut unseen);
                };
                scan_by_parts(root, || self.is_ending(), take)?;
            }
            None => {
                tracing::warn!("no store.segments in the config and no blocks: nothing is fetched, local/ is served");
                return Ok(());
            }
        }
        misnamed.extend(unseen.problems());
        self.tell_problems(Subject::Wanted, misnamed);
        self.engine().with_flows(|flows, now| flows.at(FIRST).share_out(now));
        Ok(())
    }

    /// Puts objects on the list that must have this `size`, or takes note of those that are here, whatever theirs is.
    fn want_part(
        &self,
        root: &Root,
        names: impl Iterator<Item = ObjectName>,
        size: Option<ByteCount>,
        misnamed: &mut Vec<String>,
        unseen: &mut Unseen,
    ) {
        let packet_len = self.config().packet_len;
        let mut wants = Vec::new();
        for name in names {
            if let Err(error) = check_name_fits(&name, packet_len) {
                if misnamed.len() < limits::PROBLEMS_SHOWN_MAX {
                    misnamed.push(error.to_string());
                }
                continue;
            }
            let here = match look(root, &name, size) {
                Looked::Whole { size, root } => Some((size, root)),
                Looked::Lie(lie) => {
                    take_back(root, &name, &lie);
                    None
                }
                Looked::Unknown(error) => {
                    unseen.add(&error);
                    None
                }
                Looked::Unmarked | Looked::Other => None,
            };
            wants.push((name, here));
        }
        self.engine().with_flows(|flows, _| {
            let flow = flows.at(FIRST);
            for (name, here) in wants {
                if size.is_some() {
                    flow.want(name.clone(), size, here.is_some());
                }
                if let Some((size, Some(root))) = here {
                    flow.have(name, size, root);
                }
            }
        });
    }

    /// Fetches again what was marked and is no longer there, whole and marked.
    pub(super) fn check_remote(&self) {
        let Store::Remote(root) = &self.stores[usize::from(FIRST.0)] else { return };
        // A part at a time: there may be millions.
        let places = self.engine().with_flows(|flows, _| flows.at(FIRST).places());
        let mut unseen = Unseen::default();
        for from in (0..places).step_by(limits::SCAN_PART_OBJECTS) {
            let present: Vec<(ObjectName, ByteCount)> = self.engine().with_flows(|flows, _| {
                let flow = flows.at(FIRST);
                let part = (from..places.min(from + limits::SCAN_PART_OBJECTS as u32)).map(ObjectId);
                let present = part.filter(|&id| flow.is_object(id)).filter_map(|id| match flow.state(id) {
                    ObjectState::Present { size } => Some((flow.name(id).clone(), size)),
                    _ => None,
                });
                present.collect()
            });
            let mut glance = root.glance();
            for (name, size) in present {
                if self.is_ending() {
                    return;
                }
                if !glance.stands(&name, size) {
                    self.check_present(root, &name, size, &mut unseen);
                }
            }
        }
        self.tell_problems(Subject::Remote, unseen.problems());
    }

    fn check_present(&self, root: &Root, name: &ObjectName, size: ByteCount, unseen: &mut Unseen) {
        let looked = look(root, name, Some(size));
        if let Looked::Unknown(error) = &looked {
            unseen.add(error);
        }
        if matches!(looked, Looked::Whole { .. } | Looked::Unknown(_)) {
            return;
        }
        // What has been replaced meanwhile is not what was looked at.
        let is_missed = self.engine().with_flows(|flows, _| flows.at(FIRST).want_again(name, size));
        if let Looked::Lie(lie) = looked
            && is_missed
        {
            take_back(root, name, &lie);
        }
    }
}

/// Objects that cannot be looked at: they may be many, for one cause.
#[derive(Debug, Default)]
struct Unseen {
    count: usize,
    first: Option<String>,
}

impl Unseen {
    fn add(&mut self, error: &StoreError) {
        self.count += 1;
        self.first.get_or_insert_with(|| error.to_string());
    }

    fn problems(self) -> Vec<String> {
        let others = |first| match self.count {
            1 => first,
            count => format!("{first}; so it is with {} others", count - 1),
        };
        self.first.map(others).into_iter().collect()
    }
}

/// What there is of an object that should be here.
enum Looked {
    /// It is marked and has the size that it should have.
    Whole {
        size: ByteCount,
        /// Of what it is marked with, where that is told.
        root: Option<Root256>,
    },
    /// It has no marker.
    Unmarked,
    /// It is marked, rightly, with another size.
    Other,
    /// Its marker is not true of what is here.
    Lie(String),
    /// That cannot be told now.
    Unknown(StoreError),
}

/// Changes nothing: what is here of an object stays until another version of it takes its place.
fn look(root: &Root, name: &ObjectName, size: Option<ByteCount>) -> Looked {
    match root.is_done_as(name) {
        Ok((Done::Yes(found), root)) => match size {
            Some(size) if size != found => {
                tracing::warn!(object = %name, "is here with {found}, which should be {size}: it is fetched again");
                Looked::Other
            }
            _ => Looked::Whole { size: found, root },
        },
        Ok((Done::MarkerMissing, _)) => Looked::Unmarked,
        Ok((Done::MarkerDamaged, _)) => Looked::Lie("has a damaged marker".into()),
        Ok((Done::FileMissing, _)) => Looked::Lie("is marked, but its file is gone".into()),
        Ok((Done::SizeDiffers { marked, found }, _)) => {
            Looked::Lie(format!("is marked with {marked}, but has {found}"))
        }
        Err(error) => Looked::Unknown(error),
    }
}

/// Removes a marker that is not true.
fn take_back(root: &Root, name: &ObjectName, lie: &str) {
    tracing::warn!(object = %name, "{lie}: it is fetched again");
    if let Err(error) = root.unmark(name) {
        tracing::warn!(object = %name, "{error}");
    }
}
