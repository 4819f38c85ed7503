//! Certificates and their keys on the way from files to their places: a certificate goes to the engine with the plan, a key
//! to the keyholder as an open file. The key's bytes are never in this process: the kernel copies them into a sealed file in
//! memory, which is kept for a keyholder that has to be started again.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ringpost_conf::Config;
use ringpost_tls::Certificate;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{sealed, spawn::Child};
use crate::authorities::{self, Authority};
use crate::certificates::{self, Finding, Identity, Name, Place};
use crate::ipc::codec::Channel;
use crate::ipc::keyholder::{Custody as Order, Kept, KeyPurpose, Lane, ToKeyholder};
use crate::limits::{BROKEN_PAIRS_TOLD, CUSTODY};

/// The supervisor's end of custody.
#[derive(Debug, Default)]
pub struct Custody {
    lane: Option<Channel>,
    /// The keys in force.
    held: Vec<Arc<Held>>,
    /// Those of the plan before: handshakes with them may be under way.
    before: Vec<Arc<Held>>,
    /// Number of the last key.
    last: u32,
    /// How the files were when they were looked at.
    stamps: Vec<Stamp>,
    /// What could not be used then, and why. It may be for a reason that passes and changes no file: a disk that does not read,
    /// too many open files, rights that others give.
    failed: Vec<(Place, String)>,
    /// The same of authorities.
    failed_authorities: Option<Vec<Finding>>,
    /// What was told of entries of lists that are not in use.
    told: Vec<String>,
}

/// What [`Custody::take_up`] tells of entries of lists that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// All: somebody has asked for it.
    All,
    /// What it has not told before.
    News,
}

/// A file as far as its change shows: under which name a list has it; its place behind all links, size and time.
type Stamp = (Option<String>, Option<(u64, u64, SystemTime)>);

#[derive(Debug)]
struct Held {
    key: u32,
    purpose: KeyPurpose,
    file: OwnedFd,
}

/// What a configuration's certificates have become.
#[derive(Debug, Default)]
pub struct Taken {
    /// For the plan.
    pub identities: Vec<Identity>,
    /// For the plan, too.
    pub authorities: Vec<Authority>,
    /// What an administrator should know, a line each.
    pub notes: Vec<String>,
}

impl Custody {
    /// A keyholder has been started: it gets a lane, and every key once more. What goes wrong is told.
    pub fn connect(&mut self, keyholder: &Child) -> Vec<String> {
        let lane = Channel::pair().and_then(|(ours, theirs)| {
            set_socket_timeout(&ours, Timeout::Recv, Some(CUSTODY))?;
            keyholder.hand(&ToKeyholder::Lane(Lane::Custody), theirs.as_fd());
            Ok(ours)
        });
        match lane {
            Ok(lane) => self.lane = Some(lane),
            Err(error) => return vec![format!("the keyholder cannot be given keys: {error}")],
        }
        let mut wrong = Vec::new();
        for held in self.held.iter().chain(&self.before) {
            if let Err(why) = hold(&mut self.lane, held) {
                wrong.push(format!("key {}: {why}", held.key));
            }
        }
        wrong
    }

    /// Reads the certificates that this configuration needs, and has their keys held. Those that nobody has given are made.
    /// Of a list, what cannot be used is left out and told; where `in_force`, the identities of the plan so far, has
    /// something under the same name, that stays.
    ///
    /// # Errors
    /// The report of what is wrong with files of a `pki` that names them itself, or of a list of which nothing is left;
    /// nothing has changed then.
    pub fn take_up(
        &mut self,
        config: &Config,
        state: &Path,
        in_force: &[Identity],
        tell: Tell,
    ) -> Result<Taken, String> {
        self.stamps = stamps(config, state);
        let mut taken = Taken::default();
        let mut fresh = Vec::new();
        let mut wrong = Vec::new();
        (self.failed, self.failed_authorities) = (Vec::new(), None);
        match authorities::read(config) {
            Ok(read) => taken.authorities = read,
            Err(found) => {
                wrong.extend(found.iter().map(|one| format!("{}: {}", one.line, one.text)));
                self.failed_authorities = Some(found);
            }
        }
        let mut broken = Vec::new();
        for place in certificates::places(config, state) {
            let outcome = match &place.name {
                Name::Pki(_) | Name::Client(_) => self.pair(&place, &mut fresh, &mut taken.notes),
                Name::SelfSigned(hostname) => self.own_pair(hostname, &place, &mut fresh),
            };
            if let Err(why) = &outcome
                && place.name.pki().is_some()
            {
                self.failed.push((place.clone(), why.clone()));
            }
            match (outcome, &place.name) {
                (Ok(identity), _) => taken.identities.push(identity),
                // Without a keyholder all of them fail, and none is to blame.
                (Err(why), Name::Pki(_) | Name::Client(_)) if place.listed.is_some() && self.lane.is_some() => {
                    let kept = self.kept(&place, in_force, &mut fresh, &mut taken.notes);
                    broken.push((
                        format!("{}: {}", place.line, certificates::of_entry(&place, &why, kept.is_some())),
                        place,
                    ));
                    taken.identities.extend(kept);
                }
                (Err(why), Name::Pki(name) | Name::Client(name)) => {
                    wrong.push(format!("{}: pki {name}: {why}", place.line))
                }
                // It was not asked for: a server does better without than not at all.
                (Err(why), Name::SelfSigned(_)) => taken.notes.push(format!("STARTTLS is not offered: {why}")),
            }
        }
        // Of a certificate that listeners show and relays, too, it is said once.
        taken.notes.sort();
        taken.notes.dedup();
        let mut left_out = Vec::new();
        for (text, place) in broken {
            let list =
                if taken.identities.iter().any(|found| found.name == place.name) { &mut left_out } else { &mut wrong };
            if !list.contains(&text) {
                list.push(text);
            }
        }
        if wrong.is_empty() {
            let known = std::mem::replace(&mut self.told, left_out.clone());
            left_out.retain(|text| tell == Tell::All || !known.contains(text));
            taken.notes.splice(0..0, first_of(left_out));
            self.before = std::mem::replace(&mut self.held, fresh);
        }
        self.keep();
        if wrong.is_empty() { Ok(taken) } else { Err(wrong.join("\n")) }
    }

    /// The keyholder forgets all keys but those in force, and those before them.
    fn keep(&mut self) {
        let keys = self.held.iter().chain(&self.before).map(|held| held.key).collect();
        // One that keeps too much does no harm.
        let _ = ask(&mut self.lane, &Order::Keep(keys), None);
    }

    /// Whether a file has changed since [`Custody::take_up`] has looked at it, or what could not be used then comes out
    /// otherwise now.
    pub fn has_news(&mut self, config: &Config, state: &Path) -> bool {
        self.stamps != stamps(config, state) || self.comes_out_otherwise(config)
    }

    /// Whether it is worth another look though no file changes.
    pub fn is_incomplete(&self) -> bool {
        !self.failed.is_empty() || self.failed_authorities.is_some()
    }

    fn comes_out_otherwise(&mut self, config: &Config) -> bool {
        if !self.is_incomplete() || self.lane.is_none() {
            return false;
        }
        if self.failed_authorities != authorities::read(config).err() {
            return true;
        }
        let failed = std::mem::take(&mut self.failed);
        let mut outcomes = failed.iter().map(|(place, why)| (self.pair(place, &mut Vec::new(), &mut Vec::new()), why));
        let differs = outcomes.any(|(outcome, why)| outcome.err().as_ref() != Some(why));
        drop(outcomes);
        self.failed = failed;
        self.keep();
        // Without a keyholder they fail for another reason, which is none of theirs.
        differs && self.lane.is_some()
    }

    /// The keyholder did not answer: what it says from now on would be about something else. A new one is needed.
    pub fn is_cut_off(&self) -> bool {
        self.lane.is_none()
    }

    fn pair(&mut self, place: &Place, fresh: &mut Vec<Arc<Held>>, notes: &mut Vec<String>) -> Result<Identity, String> {
        let (chain, certificate) = certificates::read(&place.cert)?;
        let of_key = |why: &dyn std::fmt::Display| certificates::of_key(place, &why.to_string());
        let file = sealed::copy(&place.key).map_err(|error| of_key(&error))?;
        self.last += 1;
        let key = self.last;
        let held = Held { key, purpose: place.name.purpose(), file };
        let public_key = hold(&mut self.lane, &held).map_err(|why| of_key(&why))?;
        certificates::belong(&certificate, &public_key, place)?;
        notes.extend(certificates::remark(&certificate, &certificates::of_file(place), SystemTime::now()));
        fresh.push(Arc::new(held));
        Ok(Identity { name: place.name.clone(), listed: place.listed.clone(), chain, key })
    }

    /// What was in force under the same name of the same list, and its key is held on. It may end before the files are mended.
    fn kept(
        &self,
        place: &Place,
        in_force: &[Identity],
        fresh: &mut Vec<Arc<Held>>,
        notes: &mut Vec<String>,
    ) -> Option<Identity> {
        let identity = in_force.iter().find(|known| known.name == place.name && known.listed == place.listed)?;
        let mut known = self.held.iter().chain(&self.before);
        fresh.push(known.find(|held| held.key == identity.key)?.clone());
        if let Ok(certificate) = Certificate::parse(identity.chain.clone()) {
            notes.extend(certificates::remark(&certificate, &certificates::of_kept(place), SystemTime::now()));
        }
        Some(identity.clone())
    }

    /// The pair that is there, or a new one.
    fn own_pair(&mut self, hostname: &str, place: &Place, fresh: &mut Vec<Arc<Held>>) -> Result<Identity, String> {
        if place.cert.exists()
            && let Ok(identity) = self.pair(place, fresh, &mut Vec::new())
        {
            return Ok(identity);
        }
        self.make(hostname, place)?;
        self.pair(place, fresh, &mut Vec::new())
    }

    fn make(&mut self, hostname: &str, place: &Place) -> Result<(), String> {
        let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let dir = place.key.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| named(dir, error))?;
        let new = place.key.with_extension("new");
        // Made afresh, so that nobody has it open.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&new, error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let file = file.map_err(|error| named(&new, error))?;
        let order = Order::Make { hostname: hostname.to_owned() };
        let Kept::Certificate(certificate) = ask(&mut self.lane, &order, Some(file.as_fd()))? else {
            return Err("the keyholder has answered something else".to_owned());
        };
        file.sync_all().map_err(|error| named(&new, error))?;
        // The certificate last: as long as it is missing, a new pair is made.
        fs::rename(&new, &place.key).map_err(|error| named(&place.key, error))?;
        fs::write(&place.cert, certificate).map_err(|error| named(&place.cert, error))
    }
}

/// As many as are told at once, and how many more there are.
fn first_of(mut told: Vec<String>) -> Vec<String> {
    let more = told.len().saturating_sub(BROKEN_PAIRS_TOLD);
    if more > 0 {
        told.truncate(BROKEN_PAIRS_TOLD);
        told.push(format!("and {more} more certificates of lists are not in use: `ringpost check` names all of them"));
    }
    told
}

/// Has a key held; its public key.
fn hold(lane: &mut Option<Channel>, held: &Held) -> Result<Vec<u8>, String> {
    let Held { key, purpose, file } = held;
    // Whoever reads it moves its place, which all copies of the descriptor share.
    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).map_err(|error| error.to_string())?;
    match ask(lane, &Order::Hold { key: *key, purpose: *purpose }, Some(file.as_fd()))? {
        Kept::PublicKey(public_key) => Ok(public_key),
        _ => Err("the keyholder has answered something else".to_owned()),
    }
}

/// One letter there and one back. After a failure the lane is closed.
fn ask(lane: &mut Option<Channel>, order: &Order, file: Option<BorrowedFd<'_>>) -> Result<Kept, String> {
    let open = lane.as_ref().ok_or("the keyholder is being started; try once more")?;
    let answer = open.send_with(order, file).and_then(|()| open.receive::<Kept>());
    let why = match answer {
        Ok(Some((Kept::Refused(why), _))) => return Err(why),
        Ok(Some((kept, _))) => return Ok(kept),
        Ok(None) => "the keyholder has ended".to_owned(),
        Err(error) => format!("the keyholder does not answer: {error}"),
    };
    *lane = None;
    Err(format!("{why}; it is started again, try once more"))
}

fn stamps(config: &Config, state: &Path) -> Vec<Stamp> {
    let given = certificates::places(config, state).into_iter().filter(|place| place.name.pki().is_some());
    let authorities = config.cas.iter().map(|ca| (None, ca.cert.clone()));
    let files = given.flat_map(|place| [(place.listed.clone(), place.cert), (place.listed, place.key)]);
    let stamp = |path: std::path::PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.modified().ok()?))
    };
    files.chain(authorities).map(|(listed, path)| (listed, stamp(path))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;
    use crate::cli::Seams;
    use crate::keyholder::{self, keys};
    use crate::limits::KEY_BYTES;
    use crate::reading::Reading;

    #[test]
    fn a_key_is_copied_and_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "a key").unwrap();
        let sealed = sealed::copy(&path).unwrap();
        fs::write(&path, "another").unwrap();
        let mut file = File::from(sealed);
        io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a key");
        assert!(file.set_len(0).is_err());
        fs::write(&path, vec![b'x'; 2 * KEY_BYTES as usize]).unwrap();
        let long = File::from(sealed::copy(&path).unwrap());
        assert_eq!(long.metadata().unwrap().len(), KEY_BYTES + 1, "one more than is allowed, which is then told");
        assert_eq!(sealed::copy(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A list of two in a state directory, and custody with a keyholder.
    struct Listed {
        dir: tempfile::TempDir,
        config: Config,
        custody: Custody,
        in_force: Vec<Identity>,
    }

    impl Listed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path().display();
            let pair = |name: &str| format!("{name}.example = \"file:{at}/{name}.crt\", \"file:{at}/{name}.key\"");
            let text = format!(
                "table certs {{ {}, {} }}\npki list from <certs>\nlisten on 127.0.0.1 port 2525 tls pki list\n\
                 action d discard\nmatch from any for any action d\n",
                pair("a"),
                pair("b")
            );
            let path = dir.path().join("c.conf");
            fs::write(&path, text).unwrap();
            let read = Reading::read(&path, &Seams::default(), &[]);
            let (_, config) = read.unwrap_or_else(|failure| panic!("{}", failure.text));
            let (ours, theirs) = Channel::pair().unwrap();
            keyholder::serve(Lane::Custody, Channel::of(theirs), Arc::default()).unwrap();
            let custody = Custody { lane: Some(ours), ..Custody::default() };
            Self { dir, config, custody, in_force: Vec::new() }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(name)
        }

        fn pair(&self, name: &str) {
            let mut key = Vec::new();
            let certificate = keys::make(&format!("{name}.example"), &mut key).unwrap();
            for (kind, text) in [("crt", certificate.as_bytes()), ("key", &key)] {
                // Another file, so that it shows however coarse the file system's clock is.
                fs::write(self.path("new"), text).unwrap();
                fs::rename(self.path("new"), self.path(&format!("{name}.{kind}"))).unwrap();
            }
        }

        /// The notes, without the directory.
        fn take_up(&mut self, tell: Tell) -> Vec<String> {
            let taken = self.custody.take_up(&self.config, self.dir.path(), &self.in_force, tell).unwrap();
            self.in_force = taken.identities;
            taken.notes
        }

        fn has_news(&mut self) -> bool {
            self.custody.has_news(&self.config, self.dir.path())
        }

        /// What is wrong with this file passes, or comes, and nothing of it shows.
        fn write_unseen(&self, name: &str, text: &[u8]) {
            let file = OpenOptions::new().write(true).open(self.path(name)).unwrap();
            let about = file.metadata().unwrap();
            assert_eq!(about.len(), text.len() as u64);
            io::Write::write_all(&mut &file, text).unwrap();
            file.set_modified(about.modified().unwrap()).unwrap();
        }
    }

    #[test]
    fn what_fails_for_a_reason_that_passes_is_taken_up_at_the_next_look_and_told_of_once() {
        let mut listed = Listed::new();
        ["a", "b"].iter().for_each(|name| listed.pair(name));
        let key = fs::read(listed.path("b.key")).unwrap();
        listed.write_unseen("b.key", &vec![b'x'; key.len()]);
        let notes = listed.take_up(Tell::All);
        assert!(matches!(&notes[..], [one] if one.contains("pki list: entry b.example: key ")), "{notes:?}");
        assert!(listed.in_force.len() == 1 && listed.custody.is_incomplete());
        assert!(!listed.has_news() && !listed.has_news(), "it is as it was");
        // Another is renewed meanwhile: of this one all was said, until somebody asks.
        listed.pair("a");
        assert!(listed.has_news());
        assert_eq!(listed.take_up(Tell::News), <[String; 0]>::default());
        assert_eq!(listed.take_up(Tell::All), notes);
        listed.write_unseen("b.key", &key);
        assert!(listed.has_news(), "no file shows it");
        assert_eq!(listed.take_up(Tell::News), <[String; 0]>::default());
        assert!(listed.in_force.len() == 2 && !listed.custody.is_incomplete() && !listed.has_news());
        // What was mended and is broken again is told again.
        fs::write(listed.path("b.key"), "x").unwrap();
        assert!(listed.has_news());
        assert_eq!((listed.take_up(Tell::News).len(), listed.in_force.len()), (1, 2), "the one before stays");
    }

    #[test]
    fn a_certificate_that_stays_since_its_files_are_broken_is_told_of_before_it_ends() {
        let mut listed = Listed::new();
        ["a", "b"].iter().for_each(|name| listed.pair(name));
        assert_eq!(listed.take_up(Tell::All), <[String; 0]>::default());
        // As it will be some day before its end.
        let mut parameters = rcgen::CertificateParams::new(["b.example".to_owned()]).unwrap();
        let soon = SystemTime::now() + std::time::Duration::from_secs(5 * 86_400 + 3600);
        parameters.not_after = soon.into();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(listed.path("b.crt"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(listed.path("b.key"), key.serialize_pem()).unwrap();
        let notes = listed.take_up(Tell::All);
        assert!(matches!(&notes[..], [one] if one.ends_with("b.crt expires in 5 days: renew it")), "{notes:?}");
        fs::write(listed.path("b.crt"), "nothing yet").unwrap();
        let notes = listed.take_up(Tell::All).join("\n");
        assert!(notes.contains("pki list: entry b.example: certificate "), "{notes}");
        let stays = "pki list: entry b.example: the certificate that stays in use expires in 5 days: renew it";
        assert!(notes.contains(stays), "{notes}");
    }

    #[test]
    fn without_a_keyholder_nothing_is_taken_up() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut lane = Some(ours);
        drop(theirs);
        let why = ask(&mut lane, &Order::Keep(Vec::new()), None).unwrap_err();
        assert!(why.contains("try once more") && lane.is_none(), "{why}");
        assert!(ask(&mut lane, &Order::Keep(Vec::new()), None).unwrap_err().contains("is being started"));
    }
}
