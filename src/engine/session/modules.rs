//! The directories that sessions reach, each under a name.
//!
//! The first component of a path on the wire names the module, the rest lies below the module's directory. Nothing else
//! of the host can be named. What a client may not use is not in its [`Modules`] at all, so a refusal tells it nothing
//! of what others may use.

use std::path::PathBuf;

use crate::units::{PathError, TreePath};

/// A directory and the name that clients know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// First component of every path into it: not empty, without `/`.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// It can be pulled from and not pushed to.
    pub read_only: bool,
}

/// What one client may use. Names are different from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modules {
    /// In no particular order.
    pub list: Vec<Module>,
}

/// Why a path of a command leads nowhere. The text goes to the client: it repeats what the client said and nothing
/// else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is empty, or begins with `/`.
    #[error(
        "the path names no module: write MODULE or MODULE/PATH, where the server's config says which modules there are"
    )]
    NoModule,
    /// There is none of this name, or it is not for this client.
    #[error("there is no module \"{0}\" for this client")]
    Unknown(TreePath),
    /// The path leads out of its module, or is too long.
    #[error("no path of a module: {0}")]
    Path(#[from] PathError),
    /// It was to be pushed to.
    #[error(
        "module \"{0}\" is read-only: it can be pulled from; the server's config would have to say read_only = false"
    )]
    ReadOnly(String),
}

impl Modules {
    /// The module that a path on the wire leads into, and where below it. One `/` at the end is left off: whether the
    /// tree itself or its contents are meant is for whoever reads the command.
    ///
    /// # Errors
    /// The path names no module, one that is not there, or something that cannot be in one.
    pub fn resolve(&self, path: &[u8]) -> Result<(&Module, TreePath), Refusal> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if path.is_empty() || path[0] == b'/' {
            return Err(Refusal::NoModule);
        }
        let whole = TreePath::new(path)?;
        let (name, rest) = match path.iter().position(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (path, &path[path.len()..]),
        };
        match self.list.iter().find(|module| module.name.as_bytes() == name) {
            Some(module) => Ok((module, TreePath::new(rest)?)),
            None => Err(Refusal::Unknown(if rest.is_empty() { whole } else { TreePath::new(name)? })),
        }
    }

    /// As [`Modules::resolve`], for what is to be pushed to.
    ///
    /// # Errors
    /// The same, and that the module is read-only.
    pub fn resolve_to_write(&self, path: &[u8]) -> Result<(&Module, TreePath), Refusal> {
        match self.resolve(path)? {
            (module, _) if module.read_only => Err(Refusal::ReadOnly(module.name.clone())),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        let module =
            |name: &str, read_only| Module { name: name.into(), path: PathBuf::from("/srv").join(name), read_only };
        Modules { list: vec![module("data", true), module("data.2", false)] }
    }

    #[test]
    fn the_first_component_names_the_module() {
        let modules = modules();
        let check = |path: &[u8], name: &str, below: &[u8]| {
            let (module, rest) =
                modules.resolve(path).unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
            assert_eq!((module.name.as_str(), rest.as_bytes()), (name, below), "{}", path.escape_ascii());
        };
        check(b"data", "data", b"");
        check(b"data/", "data", b"");
        check(b"data/a/b", "data", b"a/b");
        check(b"data/a/b/", "data", b"a/b");
        check(b"data.2/\xff\n:", "data.2", b"\xff\n:");
        check(b"data/data.2", "data", b"data.2");
    }

    #[test]
    fn nothing_else_can_be_named() {
        let check = |path: &[u8], expected: Refusal| {
            assert_eq!(modules().resolve(path), Err(expected), "{}", path.escape_ascii());
        };
        let unknown = |name: &[u8]| Refusal::Unknown(TreePath::new(name).expect("valid"));
        check(b"", Refusal::NoModule);
        check(b"/", Refusal::NoModule);
        check(b"/srv/data", Refusal::NoModule);
        check(b"dat", unknown(b"dat"));
        check(b"data2/x", unknown(b"data2"));
        check(b"DATA", unknown(b"DATA"));
        check(b"..", Refusal::Path(PathError::DotComponent));
        check(b"./data", Refusal::Path(PathError::DotComponent));
        check(b"data/../data.2", Refusal::Path(PathError::DotComponent));
        check(b"data//x", Refusal::Path(PathError::EmptyComponent));
        check(b"data//", Refusal::Path(PathError::EmptyComponent));
        check(b"data/a\0b", Refusal::Path(PathError::Nul));
        check(&b"data/".repeat(900), Refusal::Path(PathError::TooLong(4499)));
    }

    #[test]
    fn what_is_read_only_cannot_be_pushed_to() {
        let modules = modules();
        assert!(modules.resolve(b"data/x").is_ok());
        assert_eq!(modules.resolve_to_write(b"data/x"), Err(Refusal::ReadOnly("data".into())));
        assert!(modules.resolve_to_write(b"data.2/x").is_ok());
        assert_eq!(modules.resolve_to_write(b""), Err(Refusal::NoModule));
    }

    /// A client that may use nothing learns what one learns that mistypes a name.
    #[test]
    fn a_refusal_names_no_module_that_was_not_asked_for() {
        for list in [modules().list, Vec::new()] {
            let refusal = Modules { list }.resolve(b"secret\x1b[2J/x").expect_err("it is not there").to_string();
            assert_eq!(refusal, "there is no module \"secret\\u{1b}[2J\" for this client");
        }
    }
}
