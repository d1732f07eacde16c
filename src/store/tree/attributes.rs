//! Owner, extended attributes, mode and times of what has landed, set in this order: a change of owner takes special
//! bits of the mode and capabilities away, a mode may forbid to set attributes, and everything changes a time.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, getegid, geteuid, getgroups};

use super::error::TreeError;
use super::found::open_to_read;
use super::owners::Numbers;
use super::shared::Made;
use super::xattrs;
use crate::units::{Entry, FileTime, Kind, TreePath, Xattr};

/// Says what an entry's attributes are to be here, and sets them.
#[derive(Debug)]
pub(super) struct Dresser {
    /// Whether owners are set.
    owner: bool,
    /// Whether they are those of the same name, else of the same number.
    numeric_ids: bool,
    xattrs: bool,
    is_privileged: bool,
    /// Groups that an unprivileged process may give its files to.
    groups: BTreeSet<u32>,
    numbers: Numbers,
    made: Made,
    /// The first extended attribute that could not be set or removed, and of what.
    pub(super) refused: Option<(TreePath, TreeError)>,
}

/// What of an entry's attributes is not as it should be.
#[derive(Debug, Default)]
pub(super) struct Difference {
    owner: Option<(Option<Uid>, Option<Gid>)>,
    mode: bool,
    wanted_mode: u16,
    mtime: bool,
    /// Those that are there, where they are not the right ones.
    xattrs: Option<Vec<Xattr>>,
}

/// Its owner, too, sets the extended attributes of a file only where he may write to it (xattr(7)).
const OWNER_WRITES: u16 = 0o200;

impl Difference {
    pub(super) fn is_none(&self) -> bool {
        self.owner.is_none() && !self.mode && !self.mtime && self.xattrs.is_none()
    }
}

impl Dresser {
    pub(super) fn new(owner: bool, numeric_ids: bool, xattrs: bool, made: Made) -> Self {
        let groups = getgroups().unwrap_or_default().into_iter().chain([getegid()]).map(Gid::as_raw).collect();
        let (is_privileged, numbers) = (geteuid().is_root(), Numbers::default());
        Self { owner, numeric_ids, xattrs, is_privileged, groups, numbers, made, refused: None }
    }

    /// Dresses a new file that was made with `created` permissions; `None` where these are not known.
    pub(super) fn dress_new(
        &mut self,
        file: impl AsFd,
        entry: &Entry,
        created: Option<u16>,
        made: Made,
    ) -> nix::Result<()> {
        let owner = self.owner_of(entry, made.uid, made.gid);
        if let Some((uid, gid)) = owner {
            fchown(&file, uid, gid)?;
        }
        let mode = self.mode_of(entry, made.uid, made.gid);
        let mut created = created;
        if self.xattrs && !entry.xattrs.is_empty() {
            if !self.is_privileged && created.is_none_or(|created| created & OWNER_WRITES == 0) {
                fchmod(&file, Mode::from_bits_truncate((mode | OWNER_WRITES).into()))?;
                created = None;
            }
            let file = File::from(file.as_fd().try_clone_to_owned().map_err(|error| errno(&error))?);
            self.replace_xattrs(&file, &[], entry);
        }
        if created != Some(mode) || owner.is_some() && mode & 0o6000 != 0 {
            fchmod(&file, Mode::from_bits_truncate(mode.into()))?;
        }
        futimens(&file, &time(entry.atime), &time(entry.mtime))
    }

    /// How what stands under `name` differs from `entry`; the content is not looked at.
    pub(super) fn difference(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        stat: &FileStat,
        entry: &Entry,
    ) -> Difference {
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        let owner = self.owner_of(entry, stat.st_uid, stat.st_gid);
        let mut have = if self.xattrs && !is_link { self.read_xattrs(directory, name) } else { None };
        if let Some(have) = have.as_mut().filter(|_| owner.is_some()) {
            // They will not be there when the owner is another.
            have.retain(|(name, _)| **name != *xattrs::CAPABILITIES);
        }
        let wanted_mode = self.mode_of(entry, stat.st_uid, stat.st_gid);
        Difference {
            owner,
            mode: !is_link && stat.st_mode & 0o7777 != u32::from(wanted_mode),
            wanted_mode,
            mtime: !self.made.is_time(FileTime::new(stat.st_mtime, stat.st_mtime_nsec), entry.mtime),
            xattrs: have.filter(|have| !xattrs::are_same(have, &entry.xattrs, self.is_privileged)),
        }
    }

    /// Makes the attributes of what stands under `name` those of `entry`. No symbolic link is followed.
    pub(super) fn correct(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        difference: &Difference,
        entry: &Entry,
    ) -> nix::Result<()> {
        let mode = difference.wanted_mode;
        if let Some((uid, gid)) = difference.owner {
            fchownat(directory, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        let set_mode = |mode: u16| {
            let mode = Mode::from_bits_truncate(mode.into());
            fchmodat(directory, name, mode, FchmodatFlags::NoFollowSymlink)
        };
        let mut is_opened = false;
        if let Some(have) = &difference.xattrs {
            // Who may not do that may not set them either, which is told.
            is_opened = !self.is_privileged && mode & OWNER_WRITES == 0 && set_mode(mode | OWNER_WRITES).is_ok();
            let file = File::from(open_to_read(directory, name)?);
            self.replace_xattrs(&file, have, entry);
        }
        if is_opened || difference.mode || !is_link && difference.owner.is_some() && mode & 0o6000 != 0 {
            set_mode(mode)?;
        }
        if difference.mtime {
            let (atime, mtime) = (time(entry.atime), time(entry.mtime));
            utimensat(directory, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(())
    }

    /// What owner and group are to be set, where one of them is another and can be.
    fn owner_of(&mut self, entry: &Entry, uid: u32, gid: u32) -> Option<(Option<Uid>, Option<Gid>)> {
        let wanted = entry.owner.as_ref().filter(|_| self.owner)?;
        let (to_uid, to_gid) = if self.numeric_ids { (wanted.uid, wanted.gid) } else { self.numbers.of(wanted) };
        let to_uid = (to_uid != uid && self.is_privileged).then(|| Uid::from_raw(to_uid));
        let may_give = self.is_privileged || self.groups.contains(&to_gid);
        let to_gid = (to_gid != gid && may_give).then(|| Gid::from_raw(to_gid));
        (to_uid.is_some() || to_gid.is_some()).then_some((to_uid, to_gid))
    }

    /// The permissions of an entry that belongs to `uid` and `gid` now. To run as its owner or group is only allowed
    /// where these are those that the sender told: else it would run as somebody whom nobody meant.
    fn mode_of(&mut self, entry: &Entry, uid: u32, gid: u32) -> u16 {
        let is_plain = entry.mode & 0o6000 == 0 || entry.kind == Kind::Directory;
        if is_plain {
            return entry.mode;
        }
        let (to_uid, to_gid) = self.owner_of(entry, uid, gid).unwrap_or((None, None));
        let (has_uid, has_gid) = (to_uid.map_or(uid, Uid::as_raw), to_gid.map_or(gid, Gid::as_raw));
        let told = entry.owner.as_ref().filter(|_| self.owner);
        let told = told.map(|told| if self.numeric_ids { (told.uid, told.gid) } else { self.numbers.of(told) });
        let is_uid = told.is_some_and(|(uid, _)| uid == has_uid);
        let is_gid = told.is_some_and(|(_, gid)| gid == has_gid);
        entry.mode & !(if is_uid { 0 } else { 0o4000 }) & !(if is_gid { 0 } else { 0o2000 })
    }

    /// `None` where they cannot be read.
    fn read_xattrs(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<Xattr>> {
        let file = File::from(open_to_read(directory, name).ok()?);
        xattrs::read(&file, self.is_privileged).ok()
    }

    fn replace_xattrs(&mut self, file: &File, have: &[Xattr], entry: &Entry) {
        let refused = &mut self.refused;
        xattrs::replace(file, have, &entry.xattrs, self.is_privileged, |name, cause| {
            let name = name.escape_ascii().to_string();
            let path = entry.path.clone();
            refused.get_or_insert_with(|| (path.clone(), TreeError::Xattr { path, name, cause }));
        });
    }
}

fn time(time: FileTime) -> TimeSpec {
    TimeSpec::new(time.seconds(), i64::from(time.subsecond_nanoseconds()))
}

fn errno(error: &io::Error) -> Errno {
    super::super::part::errno_of(error)
}
