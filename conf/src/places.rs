//! Which files and directories of the machine a server of this configuration works with while it runs. Pure: what is there is
//! not looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::model::{Action, ActionKind, Backend, Config, Keyed, Mapping};
use crate::tables::AliasTarget;

/// Directories, `--root` in front already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Of constant databases, and of lists that aliases in memory include.
    pub read: BTreeSet<PathBuf>,
    /// Of Maildirs, as far as their paths are the same for everybody, and of logs of latencies. Those in home directories are
    /// not among them.
    pub write: BTreeSet<PathBuf>,
    /// Those of them that are the server's own to write: where mail is nobody's in particular, and of the logs.
    pub own: BTreeSet<PathBuf>,
}

impl Config {
    /// See [`Places`].
    pub fn places(&self) -> Places {
        let mut places = Places::default();
        for table in &self.tables {
            // The files of all others are read with the configuration.
            if let Backend::Db { path } = &table.backend {
                places.read.extend(path.parent().map(Path::to_owned));
            }
        }
        for action in &self.actions {
            places.read.extend(
                included(action)
                    .filter_map(|list| Some(Path::new(&self.below_root(list.to_str()?)).parent()?.to_owned())),
            );
            if let ActionKind::Maildir(maildir) = &action.kind {
                let place = common(&maildir.path).map(|path| PathBuf::from(self.below_root(path)));
                places.own.extend(place.clone().filter(|_| !action.needs_user()));
                places.write.extend(place);
            }
        }
        places.write.extend(self.metrics.hlog.clone());
        places.own.extend(self.metrics.hlog.clone());
        places
    }
}

/// The lists of an action's aliases, as far as those are in memory.
fn included(action: &Action) -> impl Iterator<Item = &Path> {
    let mapped = match &action.mapping {
        Some(Mapping::Alias(Keyed::Memory(mapped)) | Mapping::Virtual(Keyed::Memory(mapped))) => Some(mapped),
        _ => None,
    };
    mapped.into_iter().flat_map(|mapped| mapped.values()).flatten().filter_map(|target| match target {
        AliasTarget::Include(path) => Some(path.as_path()),
        _ => None,
    })
}

/// The directory that all paths of a format are below; `None`: they have none in common but a home.
fn common(format: &Format) -> Option<&str> {
    let written = format.as_written();
    let fixed = match written.find("%{") {
        None => return written.starts_with('/').then_some(written),
        Some(end) => &written[..end],
    };
    let (directory, _) = fixed.rsplit_once('/')?;
    (fixed.starts_with('/') && !directory.is_empty()).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Options, load};

    #[test]
    fn what_is_named_is_found() {
        let text = "table a file:/etc/mail/aliases\ntable b db:/etc/other/b.db\n\
            action one maildir \"/var/vmail/%{dest.domain}/%{dest.user}\" virtual <b>\n\
            action two maildir \"/srv/one\" alias { x => \":include:/srv/lists/all\" }\n\
            action five maildir \"/srv/users/%{user.username}\" alias <a>\nmatch for domain d.example action five\n\
            action three maildir alias <a>\naction four maildir \"%{user.directory}/x\" alias <a>\n\
            listen on lo0\nmatch for domain a.example action one\nmatch for domain b.example action two\n\
            match for domain c.example action four\nmatch for any action three\n";
        let files = Memory::default().with("c", text).with("/etc/mail/aliases", "a: b\n").with("/etc/other/b.db", "");
        let options = Options::default();
        let (config, _) = load(&files, Path::new("c"), &options).unwrap_or_else(|reports| panic!("{reports}"));
        let all = |places: &BTreeSet<PathBuf>| places.iter().map(|one| one.display().to_string()).collect::<Vec<_>>();
        let places = config.places();
        assert_eq!(all(&places.read), ["/etc/other", "/srv/lists"]);
        assert_eq!(all(&places.write), ["/srv/one", "/srv/users", "/var/vmail"]);
        assert_eq!(all(&places.own), ["/srv/one", "/var/vmail"]);
    }
}
