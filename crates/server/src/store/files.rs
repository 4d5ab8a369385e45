//! Files of stores, and beside them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use tempfile::{Builder, NamedTempFile, TempPath};

/// What SQLite keeps beside a store: what is not written into it yet, and who reads it.
const BESIDE: [&str; 3] = ["-journal", "-wal", "-shm"];

/// A new file that gets its name when it is complete. Until then its name ends in `.part`, and only a process that is
/// killed leaves it.
pub(super) struct Part {
    file: NamedTempFile,
}

// === impl Part ===

impl Part {
    /// Makes an empty file, which only its owner can read, in the folder of a path.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        name.push(".");
        let file = Builder::new().prefix(&name).suffix(".part").tempfile_in(folder(path));
        // The whole error repeats the path.
        Ok(Self { file: file.map_err(|error| error.kind())? })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file a name that no file has yet.
    pub(super) fn keep_as_new(self, path: &Path) -> io::Result<()> {
        self.sync()?.persist_noclobber(path)?;
        sync_folder(path)
    }

    /// Gives the file a name, and the owner of the file that had it.
    pub(super) fn replace(self, path: &Path) -> io::Result<()> {
        let (own, old) = (self.file.as_file().metadata()?, fs::metadata(path).ok());
        if let Some(old) = old.filter(|old| (old.uid(), old.gid()) != (own.uid(), own.gid())) {
            fchown(self.file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        self.sync()?.persist(path)?;
        sync_folder(path)
    }

    fn sync(self) -> io::Result<TempPath> {
        self.file.as_file().sync_all()?;
        Ok(self.file.into_temp_path())
    }
}

/// The file that a path names, or will name, without symbolic links.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_taken(path) => {
            let name = path.file_name().ok_or(error)?;
            Ok(folder(path).canonicalize()?.join(name))
        }
        resolved => resolved,
    }
}

/// Whether anything has this name, also a symbolic link that leads nowhere.
pub(super) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether two paths name one file.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    id(one).is_some_and(|one| id(other) == Some(one))
}

/// Checks that a file is there and can be read. SQLite does not say why it cannot open one. The file is not opened,
/// because to close it would release the locks of the other connections of this process.
pub(super) fn check_readable(path: &Path) -> io::Result<()> {
    let file = fs::metadata(path)?;
    if file.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !file.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(access(path, Access::READ_OK)?)
}

/// A file that SQLite would take for a part of the store of this path.
pub(super) fn left_beside(path: &Path) -> Option<PathBuf> {
    let beside = BESIDE.iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    beside.into_iter().find(|path| is_taken(path))
}

/// Waits until the disk has the names of the files beside a path.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}
