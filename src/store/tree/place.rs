//! Entries get their names: whole files, directories, symbolic and hard links, each at once and dressed.

use std::io::IoSlice;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, ftruncate, linkat, symlinkat, unlinkat};

use super::super::part::{Flush, Part, PrivateFile};
use super::super::root::{is_same_file, remove_entry};
use super::error::TreeError;
use super::landing::{Change, Examined, Landing, State, Wanted};
use super::walk::kind_of;
use crate::limits;
use crate::units::{ByteCount, Entry, Kind, Offset, TreePath};

impl Landing {
    /// Gives a wanted file that is whole its attributes and its name, in place of whatever has that name; a directory
    /// goes only when it is empty or what was not sent is to be deleted.
    ///
    /// [`TreeError::NotWhole`] when some of it has not come; it can still come then.
    pub fn finish(&mut self, id: u16) -> Result<(), TreeError> {
        let Some(wanted) = self.take_wanted(id) else { return Err(TreeError::UnknownFile(id)) };
        let size = wanted.entry.size;
        if !wanted.here.is_full(size) {
            let missing = ByteCount(size.0 - wanted.here.total().0);
            let (root, path) = (self.tree.path().to_path_buf(), wanted.path.clone());
            self.put_wanted_back(id, wanted);
            return Err(TreeError::NotWhole { root, path, missing });
        }
        let Wanted { entry, path, state, is_resumed, .. } = wanted;
        match state {
            State::Waiting => {
                let file = self.create(&path, &entry)?;
                if size.0 > 0 {
                    let length = i64::try_from(size.0).unwrap_or(i64::MAX);
                    ftruncate(&file, length).map_err(|errno| self.fail(&path, "make a file for", errno))?;
                }
                self.finish_plain(id, file, path, &entry)
            }
            State::Whole(file) => self.finish_plain(id, file, path, &entry),
            State::Part { claim, part } => {
                let of_store = |error| TreeError::of_store(&path, error);
                let part: Part = match part {
                    Some(part) => part,
                    None => self.tree.find_part(&claim, size).map_err(of_store)?,
                };
                let finished = self.finish_part(&part, &path, &entry, is_resumed);
                if part.lasts() {
                    return finished;
                }
                self.tree.with_journal(|journal| {
                    journal.forget(&part);
                    Ok(())
                })?;
                finished?;
                drop(claim);
                let _ = self.tree.discard_left(&path);
                Ok(())
            }
        }
    }

    /// Finishes a file that came in several pieces. What an earlier session wrote of it is looked at where the sender
    /// told what should be in it; where nobody waits for that any more, the next session does it.
    fn finish_part(&mut self, part: &Part, path: &TreePath, entry: &Entry, is_resumed: bool) -> Result<(), TreeError> {
        let file = part.file();
        let stands = fstat(file).map_err(|errno| self.fail(path, "look at", errno))?;
        if (stands.st_size as u64) < entry.size.0 {
            // It ends in a hole. Its length is to say that all before that is there.
            self.flush_file(file, path)?;
            ftruncate(file, entry.size.0 as i64).map_err(|errno| self.fail(path, "lengthen", errno))?;
        }
        if let Some(hash) = entry.hash.filter(|_| is_resumed) {
            match self.hash(file, entry.size).map_err(|errno| self.fail(path, "read back", errno))? {
                None => return Ok(()),
                Some(found) if found == hash => {}
                Some(_) => {
                    part.abandon();
                    return Err(TreeError::Damaged { root: self.tree.path().to_path_buf(), path: path.clone() });
                }
            }
        }
        self.dress(file, path, entry, false)?;
        if self.options.fsync {
            self.flush_file(file, path)?;
        }
        self.rename(file, path)
    }

    /// Ends a batch: gives the files that wait for it their names, makes its hard links, and tells which of both could
    /// not be had. Wanted files that were not finished are given no name; what can be gone on with stays.
    pub fn end_batch(&mut self) -> Vec<(u16, TreeError)> {
        self.name_flushed();
        let links = std::mem::take(&mut self.links);
        let mut failed = std::mem::take(&mut self.failed);
        for (id, entry) in links {
            if let Err(error) = self.link(&entry) {
                failed.push((id, error));
            }
        }
        self.clear_batch();
        failed
    }

    /// Writes a file that came in one piece.
    pub(super) fn write_whole(&mut self, id: u16, slices: &[IoSlice<'_>]) -> Result<PrivateFile, TreeError> {
        let wanted = self.wanted.get(&id).ok_or(TreeError::UnknownFile(id))?;
        let file = self.create(&wanted.path, &wanted.entry)?;
        let fail = |errno| self.fail_of_size(&wanted.path, "write", wanted.entry.size, errno);
        let mut copy = slices.to_vec();
        let mut rest = &mut copy[..];
        let mut offset = Offset(0);
        while offset.0 < wanted.entry.size.0 {
            let some = &rest[..rest.len().min(limits::TRAIN_IOVECS_MAX)];
            match nix::sys::uio::pwritev(&file, some, offset.0 as i64) {
                Ok(0) => return Err(fail(Errno::EIO)),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    offset.0 += written as u64;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(file)
    }

    fn create(&self, path: &TreePath, entry: &Entry) -> Result<PrivateFile, TreeError> {
        let mode = Mode::from_bits_truncate(u32::from(entry.mode & 0o777));
        PrivateFile::create_plain(self.tree.shared()?, mode)
            .map_err(|errno| self.fail_of_size(path, "make a file for", entry.size, errno))
    }

    /// Finishes a file that was made with its permissions. Where it is to be on disk before it has its name it waits
    /// for others: to flush many at once costs little more than one.
    fn finish_plain(&mut self, id: u16, file: PrivateFile, path: TreePath, entry: &Entry) -> Result<(), TreeError> {
        self.dress(&file, &path, entry, true)?;
        // What cannot be removed now is removed the next time.
        let _ = self.tree.discard_left(&path);
        if !self.options.fsync {
            return self.rename(&file, &path);
        }
        self.unflushed.push((id, path, file));
        if self.unflushed.len() >= limits::COMMIT_BATCH_MAX {
            self.name_flushed();
        }
        Ok(())
    }

    /// Flushes the files that wait for that, and gives them their names.
    fn name_flushed(&mut self) {
        let files = std::mem::take(&mut self.unflushed);
        let writer = self.tree.shared().and_then(|shared| shared.writer());
        let all_flushed = writer.is_ok_and(|writer| writer.sync_at_once(files.len()));
        for (id, path, file) in files {
            let flushed = if all_flushed { Ok(()) } else { self.flush_file(&file, &path) };
            if let Err(error) = flushed.and_then(|()| self.rename(&file, &path)) {
                self.failed.push((id, error));
            }
        }
    }

    fn flush_file(&self, file: &PrivateFile, path: &TreePath) -> Result<(), TreeError> {
        file.flush(Flush::All).map_err(|errno| self.fail(path, "flush", errno))
    }

    /// Gives a file that is whole its attributes; `is_plain` when it was made with its permissions.
    fn dress(&mut self, file: &PrivateFile, path: &TreePath, entry: &Entry, is_plain: bool) -> Result<(), TreeError> {
        let made = self.tree.made();
        let created = is_plain.then_some(entry.mode & 0o777 & !made.masked);
        let dressed = self.dresser.dress_new(file, entry, created, made);
        dressed.map_err(|errno| self.fail(path, "set the attributes of", errno))
    }

    fn rename(&mut self, file: &PrivateFile, path: &TreePath) -> Result<(), TreeError> {
        self.put(path, "file", |directory, name| file.rename_to(directory, name))?;
        self.note_landed(path);
        Ok(())
    }

    /// Does the step that puts something under its name; where the way is not clear, clears it and tries again.
    fn put(
        &mut self,
        path: &TreePath,
        wanted: &'static str,
        mut step: impl FnMut(BorrowedFd<'_>, &[u8]) -> nix::Result<()>,
    ) -> Result<(), TreeError> {
        let (above, name) = path.split();
        let mut attempt = |landing: &mut Self| {
            let directory = landing.directories.make(above)?;
            step(directory.as_fd(), name)
        };
        let mut outcome = attempt(self);
        if outcome == Err(Errno::EACCES) && self.directories.loosen(above) {
            outcome = attempt(self);
        }
        // The directory was removed while it was held open.
        if outcome == Err(Errno::ENOENT) {
            self.directories.close();
            outcome = attempt(self);
        }
        if matches!(outcome, Err(Errno::EISDIR | Errno::EEXIST | Errno::ENOTEMPTY)) {
            self.clear_way(path, wanted)?;
            outcome = attempt(self);
        }
        outcome.map_err(|errno| self.fail(path, "put in place", errno))
    }

    /// Removes the directory that stands at `path`.
    fn clear_way(&mut self, path: &TreePath, wanted: &'static str) -> Result<(), TreeError> {
        self.directories.close();
        let (directory, name) = self.parent_of(path).map_err(|errno| self.fail(path, "open", errno))?;
        match unlinkat(&directory, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if self.options.delete => drop(self.remove_in_way(path)?),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(self.fail(path, "remove", errno)),
        }
        match self.look(path)? {
            Some(stat) if kind_of(&stat) == SFlag::S_IFDIR => {
                Err(TreeError::InTheWay { root: self.tree.path().to_path_buf(), path: path.clone(), wanted })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn examine_directory(
        &mut self,
        path: TreePath,
        entry: Entry,
        stat: Option<&FileStat>,
    ) -> Result<Examined, TreeError> {
        if self.listed.len() >= limits::OBJECTS_MAX {
            return Err(self.too_many(limits::OBJECTS_MAX, "directories"));
        }
        if self.listed_bytes > limits::LISTED_BYTES_MAX {
            return Err(self.too_many(limits::LISTED_BYTES_MAX, "bytes of directories' names and extended attributes"));
        }
        let is_dir = stat.is_some_and(|stat| kind_of(stat) == SFlag::S_IFDIR);
        let examined = match stat {
            Some(stat) if is_dir => {
                let differs = match path.is_top() {
                    true => self.tree.dir().map(|dir| !self.dresser.difference(dir, b".", stat, &entry).is_none()),
                    false => self.parent_of(&path).map(|(directory, name)| {
                        !self.dresser.difference(directory.as_fd(), name, stat, &entry).is_none()
                    }),
                };
                let differs = differs.map_err(|errno| self.fail(&path, "look at", errno))?;
                if differs { Examined::Made(Change::Attributes) } else { Examined::Same }
            }
            _ => Examined::Made(Change::New),
        };
        if !self.options.dry_run && !is_dir {
            if stat.is_some() {
                self.remove_file(&path)?;
            }
            let mode = Mode::from_bits_truncate(u32::from(entry.mode & 0o777) | 0o700);
            self.put(&path, "directory", |directory, name| match mkdirat(directory, name, mode) {
                // The tree's own directory, or one that another session made.
                Err(Errno::EEXIST | Errno::ENOENT) if name.is_empty() => Ok(()),
                Err(Errno::EEXIST) => Ok(()),
                outcome => outcome,
            })?;
        }
        self.remember(path, entry)?;
        Ok(examined)
    }

    /// Remembers a directory for the end of the session, as far as there is something to do then.
    fn remember(&mut self, path: TreePath, mut entry: Entry) -> Result<(), TreeError> {
        if self.options.dry_run {
            if !self.options.delete {
                return Ok(());
            }
            entry.xattrs = Vec::new();
        }
        let bytes = limits::ENTRY_BYTES + 2 * path.as_bytes().len() + entry.xattrs_weight();
        if !self.listed_held.take(bytes) {
            return Err(self.crowded());
        }
        self.listed_bytes += bytes;
        self.listed.insert(path, entry);
        Ok(())
    }

    pub(super) fn examine_symlink(
        &mut self,
        path: &TreePath,
        target: &[u8],
        entry: &Entry,
        stat: Option<&FileStat>,
    ) -> Result<Examined, TreeError> {
        let is_link = stat.is_some_and(|stat| kind_of(stat) == SFlag::S_IFLNK);
        if let Some(stat) = stat.filter(|_| is_link) {
            let (directory, name) = self.parent_of(path).map_err(|errno| self.fail(path, "look at", errno))?;
            let found = readlinkat(&directory, name).map_err(|errno| self.fail(path, "read", errno))?;
            if std::os::unix::ffi::OsStrExt::as_bytes(found.as_os_str()) == target {
                return self.correct(path, entry, stat);
            }
        }
        if stat.is_some_and(|stat| kind_of(stat) == SFlag::S_IFDIR) {
            self.check_way(path, "symbolic link")?;
        }
        if !self.options.dry_run {
            let tree = Arc::clone(&self.tree);
            let writer = tree.shared()?.writer()?;
            if stat.is_none() {
                self.put(path, "symbolic link", |directory, name| symlinkat(target, directory, name))?;
            } else {
                let temporary = writer.next_entry();
                let made = symlinkat(target, &writer.parts, temporary.as_str());
                made.map_err(|errno| self.fail(path, "make a symbolic link for", errno))?;
                let put = self.put(path, "symbolic link", |directory, name| {
                    renameat(&writer.parts, temporary.as_str(), directory, name)
                });
                if put.is_err() {
                    // What is left is removed when the tree is opened again.
                    let _ = remove_entry(writer.parts.as_fd(), temporary.as_bytes());
                }
                put?;
            }
            let stat = self.look(path)?.ok_or_else(|| self.fail(path, "look at", Errno::ENOENT))?;
            self.correct(path, entry, &stat)?;
        }
        Ok(Examined::Made(if is_link { Change::Content } else { Change::New }))
    }

    /// Corrects the attributes of what has the right content already.
    pub(super) fn correct(&mut self, path: &TreePath, entry: &Entry, stat: &FileStat) -> Result<Examined, TreeError> {
        let (directory, name) = self.parent_of(path).map_err(|errno| self.fail(path, "look at", errno))?;
        let difference = self.dresser.difference(directory.as_fd(), name, stat, entry);
        if difference.is_none() {
            return Ok(Examined::Same);
        }
        if !self.options.dry_run {
            let corrected = self.dresser.correct(directory.as_fd(), name, &difference, entry);
            corrected.map_err(|errno| self.fail(path, "set the attributes of", errno))?;
        }
        Ok(Examined::Made(Change::Attributes))
    }

    /// Makes an entry another name of a file that landed before.
    fn link(&mut self, entry: &Entry) -> Result<(), TreeError> {
        let Kind::HardLink(target) = &entry.kind else { return Ok(()) };
        let refused = |reason: crate::units::PathError| TreeError::Refused {
            root: self.tree.path().to_path_buf(),
            path: entry.path.clone(),
            reason: reason.into(),
        };
        let path = self.base.append(&entry.path).map_err(refused)?;
        let first = self.base.append(target).map_err(refused)?;
        let stat = if self.is_landed(&first) { self.look(&first)? } else { None };
        let Some(stat) = stat.filter(|stat| kind_of(stat) == SFlag::S_IFREG) else {
            return Err(self.no_link_target(&path, &first));
        };
        let (from, from_name) = self.parent_of(&first).map_err(|errno| self.fail(&first, "look at", errno))?;
        match self.look(&path)? {
            // Renaming one name of a file over another does nothing (rename(2)).
            Some(there) if is_same_file(&there, &stat) => {}
            None => self.put(&path, "hard link", |directory, name| {
                linkat(&from, from_name, directory, name, AtFlags::empty())
            })?,
            Some(_) => {
                let tree = Arc::clone(&self.tree);
                let writer = tree.shared()?.writer()?;
                let temporary = writer.next_entry();
                linkat(&from, from_name, &writer.parts, temporary.as_str(), AtFlags::empty())
                    .map_err(|errno| self.fail(&path, "make a hard link for", errno))?;
                let put = self.put(&path, "hard link", |directory, name| {
                    renameat(&writer.parts, temporary.as_str(), directory, name)
                });
                // Gone when it was put in place; what is left is removed when the tree is opened again.
                let _ = remove_entry(writer.parts.as_fd(), temporary.as_bytes());
                put?;
            }
        }
        self.note_landed(&path);
        Ok(())
    }

    /// Removes what stands where a directory is to be.
    fn remove_file(&mut self, path: &TreePath) -> Result<(), TreeError> {
        let (directory, name) = self.parent_of(path).map_err(|errno| self.fail(path, "remove", errno))?;
        let mut removed = remove_entry(directory.as_fd(), name);
        if removed == Err(Errno::EACCES) && self.directories.loosen(path.split().0) {
            removed = remove_entry(directory.as_fd(), name);
        }
        removed.map(drop).map_err(|errno| self.fail(path, "remove", errno))
    }

    /// Sets the attributes of a directory, now that nothing more changes in it.
    pub(super) fn dress_directory(&mut self, path: &TreePath, entry: &Entry) -> Result<(), TreeError> {
        let fail = |landing: &Self, errno| landing.fail(path, "set the attributes of", errno);
        if path.is_top() {
            let dir = self.tree.dir().map_err(|errno| fail(self, errno))?;
            let stat = nix::sys::stat::fstat(dir).map_err(|errno| fail(self, errno))?;
            let difference = self.dresser.difference(dir, b".", &stat, entry);
            return self.dresser.correct(dir, b".", &difference, entry).map_err(|errno| fail(self, errno));
        }
        let (directory, name) = self.parent_of(path).map_err(|errno| fail(self, errno))?;
        let stat = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|errno| fail(self, errno))?;
        if kind_of(&stat) != SFlag::S_IFDIR {
            return Err(fail(self, Errno::ENOTDIR));
        }
        let difference = self.dresser.difference(directory.as_fd(), name, &stat, entry);
        let corrected = self.dresser.correct(directory.as_fd(), name, &difference, entry);
        corrected.map_err(|errno| fail(self, errno))
    }
}
