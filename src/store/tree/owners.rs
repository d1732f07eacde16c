//! Users and groups by number and by name, each looked up once.

use std::collections::HashMap;

use nix::unistd::{Gid, Group, Uid, User};

use crate::units::Owner;

/// The names of users and groups that were looked up.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<u32, Option<Box<str>>>,
    groups: HashMap<u32, Option<Box<str>>>,
}

impl Names {
    /// Whom an entry belongs to, with the names where they are known and `wanted`.
    pub(super) fn owner(&mut self, uid: u32, gid: u32, wanted: bool) -> Owner {
        if !wanted {
            return Owner { uid, gid, user: None, group: None };
        }
        let user = self.users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map(|user| user.name.into())
        });
        let group = self.groups.entry(gid).or_insert_with(|| {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            group.map(|group| group.name.into())
        });
        Owner { uid, gid, user: user.clone(), group: group.clone() }
    }
}

/// The numbers of users and groups here that were looked up by their names at the sender.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    users: HashMap<Box<str>, Option<u32>>,
    groups: HashMap<Box<str>, Option<u32>>,
}

impl Numbers {
    /// The user and the group that an entry is to belong to here: those of the same name, else those of the same
    /// number.
    pub(super) fn of(&mut self, owner: &Owner) -> (u32, u32) {
        let by_name = owner.user.as_ref().and_then(|name| {
            let look = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
            *self.users.entry(name.clone()).or_insert_with(look)
        });
        let uid = by_name.unwrap_or(owner.uid);
        let by_name = owner.group.as_ref().and_then(|name| {
            let look = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
            *self.groups.entry(name.clone()).or_insert_with(look)
        });
        (uid, by_name.unwrap_or(owner.gid))
    }
}
