//! Authorities that an administrator names (`ca`): read by the supervisor, and taken to the engine with the plan, which needs
//! no file for them.

use std::path::Path;

use ringpost_conf::Config;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::certificates::{self, Finding};

/// A `ca`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// What it is called.
    pub name: String,
    /// Its certificates in DER.
    pub certificates: Vec<Vec<u8>>,
}

impl Authority {
    /// Whom to trust.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.certificates.iter().map(|der| CertificateDer::from(der.as_slice())));
        roots
    }
}

/// All that a configuration names.
///
/// # Errors
/// What is wrong with each of their files, with the line that names it.
pub fn read(config: &Config) -> Result<Vec<Authority>, Vec<Finding>> {
    let mut wrong = Vec::new();
    let mut authorities = Vec::new();
    for ca in &config.cas {
        match read_one(&ca.name, &ca.cert) {
            Ok(authority) => authorities.push(authority),
            Err(why) => {
                let text = format!("ca {}: {why}", ca.name);
                wrong.push(Finding { line: ca.line.clone(), text, is_error: true });
            }
        }
    }
    if wrong.is_empty() { Ok(authorities) } else { Err(wrong) }
}

fn read_one(name: &str, path: &Path) -> Result<Authority, String> {
    let certificates = certificates::chain(path, "authority")?;
    let authority = Authority { name: name.to_owned(), certificates };
    match authority.roots().is_empty() {
        true => Err(format!("authority {}: none of its certificates can be read", path.display())),
        false => Ok(authority),
    }
}
