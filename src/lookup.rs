//! The process that looks up one certificate in a table, and ends. It has the key for that moment, and gives it away as a
//! sealed file in memory; so no process that lives longer ever has it, but the keyholder.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ringpost_io::sys;
use ringpost_shard::Said;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificates;
use crate::cli;
use crate::coordinator::tables::{Service, Surroundings, direct};
use crate::ipc::codec::{Channel, from_memory};
use crate::ipc::shelf::{Seen, Task};
use crate::supervisor::sealed;

/// Where a private key begins in PEM, and where it ends.
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_MARK: &str = "PRIVATE KEY-----";

/// Does what the one letter says.
pub fn run(channel: &Channel) -> io::Result<()> {
    sys::hide_memory()?;
    let Some((parent, Some(letter))) = channel.receive::<u32>()? else { return Ok(()) };
    sys::die_with_parent(parent)?;
    let task: Task = from_memory(letter)?;
    match look(&task) {
        Ok((seen, key)) => channel.send_with(&seen, key.as_ref().map(|key| key.as_fd())),
        Err(why) => channel.send(&Seen::Failed(why)),
    }
}

fn look(task: &Task) -> Result<(Seen, Option<OwnedFd>), String> {
    let surroundings = Surroundings { root: task.root.clone(), events: Arc::new(|_| {}), users: None };
    match direct::once(task.table.clone(), Service::Cert, task.keys.clone(), &surroundings) {
        Said::NotFound { .. } => Ok((Seen::Nothing, None)),
        Said::Failed(why) | Said::Wrong(why) => Err(why),
        Said::Found { text, .. } => {
            let (chain, key) = Row::read(&text, task.root.as_deref())?.material()?;
            match chain.first() == task.known.as_ref() {
                true => Ok((Seen::Same, None)),
                false => Ok((Seen::New(chain), Some(key))),
            }
        }
    }
}

/// A row: a chain and a key, each as text or in a file.
struct Row<'t> {
    /// Lines that name files.
    files: Vec<std::path::PathBuf>,
    text: &'t str,
}

impl<'t> Row<'t> {
    fn read(text: &'t str, root: Option<&Path>) -> Result<Self, String> {
        // A line of a PEM text may begin like a path.
        let mut inside = false;
        let mut paths = Vec::new();
        for line in text.lines().map(str::trim) {
            match line {
                _ if line.starts_with("-----BEGIN ") => inside = true,
                _ if line.starts_with("-----END ") => inside = false,
                _ if inside => {}
                _ => paths.extend(line.strip_prefix("file:").or(line.starts_with('/').then_some(line))),
            }
        }
        let place = |path: &str| match root {
            Some(root) => cli::below(root, Path::new(path)),
            None => path.into(),
        };
        let files: Vec<_> = paths.into_iter().map(place).collect();
        let has = |mark: &str| text.contains(mark);
        let parts = files.len()
            + usize::from(has("-----BEGIN CERTIFICATE-----"))
            + usize::from(has(KEY_MARK) && has(KEY_BEGINS));
        match parts {
            2 => Ok(Self { files, text }),
            _ => Err("its entry is not a chain and a key (PEM text, or file:/path)".to_owned()),
        }
    }

    fn material(&self) -> Result<(Vec<Vec<u8>>, OwnedFd), String> {
        let in_text = self.text.contains(KEY_MARK);
        match (&self.files[..], in_text) {
            ([chain, key], _) => Ok((certificates::chain(chain, "certificate")?, of_file(key)?)),
            ([chain], true) => Ok((certificates::chain(chain, "certificate")?, of_text(self.text)?)),
            ([key], false) => Ok((chain(self.text)?, of_file(key)?)),
            _ => Ok((chain(self.text)?, of_text(self.text)?)),
        }
    }
}

fn chain(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let read: Result<Vec<Vec<u8>>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).map(|one| one.map(|one| one.to_vec())).collect();
    read.map_err(|error| format!("the PEM of its chain is damaged: {error}"))
}

fn of_file(path: &Path) -> Result<OwnedFd, String> {
    sealed::copy(path).map_err(|error| format!("key {}: {error}", path.display()))
}

/// The key alone, in a sealed file.
fn of_text(text: &str) -> Result<OwnedFd, String> {
    let marks: Vec<usize> = text.match_indices(KEY_MARK).map(|(at, _)| at).collect();
    let [first, last] = marks[..] else { return Err("its entry must have one key".to_owned()) };
    let begin = text[..first].rfind(KEY_BEGINS).ok_or("the PEM of its key is damaged")?;
    let key = &text[begin..last + KEY_MARK.len()];
    let write = || {
        let memory = memfd_create("ringpost-key", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(memory);
        file.write_all(key.as_bytes())?;
        fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok::<_, io::Error>(OwnedFd::from(file))
    };
    write().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyholder::keys;

    #[test]
    fn rows_of_all_forms_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut key = Vec::new();
        let certificate = keys::make("a.example", &mut key).unwrap();
        let key = String::from_utf8(key).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("crt"), &certificate).unwrap();
        std::fs::write(at("key"), &key).unwrap();
        for text in [
            format!("{certificate}\n{key}"),
            format!("file:{}\nfile:{}", at("crt"), at("key")),
            format!("{}\n{key}", at("crt")),
            format!("{certificate}\nfile:{}", at("key")),
        ] {
            let (chain, sealed) = Row::read(&text, None).unwrap().material().unwrap();
            assert_eq!(chain.len(), 1);
            let mut file = File::from(sealed);
            io::Seek::rewind(&mut file).unwrap();
            let held = keys::Keys::default().hold(1, crate::ipc::keyholder::KeyPurpose::TlsServer, &mut file).unwrap();
            let parsed = ringpost_tls::Certificate::parse(chain).unwrap();
            assert_eq!(held, parsed.public_key(), "{text}");
        }
        for bad in ["", "nothing", certificate.as_str(), key.as_str()] {
            assert!(Row::read(bad, None).is_err(), "{bad}");
        }
        let slashes = "-----BEGIN CERTIFICATE-----\n/AAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n/A==\n-----END PRIVATE KEY-----";
        assert!(Row::read(slashes, None).is_ok_and(|row| row.files.is_empty()), "no path begins in PEM");
        let none = format!("file:{}\nfile:{}", at("none"), at("key"));
        assert!(Row::read(&none, None).unwrap().material().unwrap_err().contains("none: No such file"));
    }
}
