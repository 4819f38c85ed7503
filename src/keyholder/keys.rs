//! Private keys: how they come in, and what is told of them, which is never the key.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::SigningKey;

use crate::ipc::keyholder::{FIRST_FOUND, KeyPurpose};
use crate::limits::{FOUND_KEYS, KEY_BYTES};

/// A key that is ready to sign.
pub type Key = Arc<dyn SigningKey>;

/// All keys, by number.
#[derive(Default)]
pub struct Keys(Mutex<BTreeMap<u32, (KeyPurpose, Key)>>);

impl Keys {
    /// Keeps the key in this file under that number, which must be free; its public key.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn hold(&self, number: u32, purpose: KeyPurpose, file: &mut impl Read) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        let read = file.take(KEY_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| format!("it cannot be read: {error}"))?;
        let key = parse(&text)?;
        let public_key = public_key(&key)?;
        let mut keys = self.0.lock().expect("nobody panics with it");
        if keys.contains_key(&number) {
            return Err(format!("there is a key {number} already"));
        }
        keys.insert(number, (purpose, key));
        // Of those that were found the oldest make room; whoever still wants one finds it again.
        let oldest = keys.range(FIRST_FOUND..).next().map(|(number, _)| *number);
        if keys.range(FIRST_FOUND..).count() > FOUND_KEYS
            && let Some(oldest) = oldest
        {
            keys.remove(&oldest);
        }
        Ok(public_key)
    }

    /// Forgets all but these, and those that were found in tables.
    pub fn keep(&self, wanted: &[u32]) {
        let stays = |number: &u32| *number >= FIRST_FOUND || wanted.contains(number);
        self.0.lock().expect("nobody panics with it").retain(|number, _| stays(number));
    }

    /// A key for this purpose.
    pub fn get(&self, number: u32, purpose: KeyPurpose) -> Option<Key> {
        let keys = self.0.lock().expect("nobody panics with it");
        keys.get(&number).filter(|(is_for, _)| *is_for == purpose).map(|(_, key)| key.clone())
    }
}

/// Reads a private key in PEM.
///
/// # Errors
/// Says what is wrong with the text, and what to do.
pub fn parse(text: &[u8]) -> Result<Key, String> {
    if text.len() as u64 > KEY_BYTES {
        return Err(format!("it has more than {KEY_BYTES} bytes; is it a key at all?"));
    }
    // Of PKCS #8, and of the older form (RFC 1421 §4.6.1.1).
    if [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b",ENCRYPTED"].iter().any(|mark| contains(text, mark)) {
        return Err(
            "it needs a pass phrase, and nobody is there to type it; `openssl pkey -in FILE -out NEW` writes one \
                    that needs none"
                .to_owned(),
        );
    }
    let der = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => "there is no private key in it (PEM, `-----BEGIN PRIVATE KEY-----`)".to_owned(),
        other => format!("its PEM is damaged: {other}"),
    })?;
    any_supported_type(&der).map_err(|_| {
        "it is damaged, or of a kind that is not supported: ECDSA on P-256, P-384 or P-521, Ed25519, and RSA with 2048 to \
         8192 bits are"
            .to_owned()
    })
}

/// `SubjectPublicKeyInfo` in DER.
///
/// # Errors
/// The key does not tell.
pub fn public_key(key: &Key) -> Result<Vec<u8>, String> {
    let public_key = key.public_key().ok_or("its public key cannot be told")?;
    Ok(public_key.as_ref().to_vec())
}

/// Makes a key of ECDSA on P-256, writes it to `file` in PEM, and returns a certificate in PEM that it has signed itself.
///
/// # Errors
/// It cannot be made, or not written.
pub fn make(hostname: &str, file: &mut impl Write) -> Result<String, String> {
    let text = |error: rcgen::Error| format!("no certificate can be made for {hostname}: {error}");
    let pair = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::new(vec![hostname.to_owned()]).map_err(text)?;
    params.distinguished_name.push(DnType::CommonName, hostname);
    // Whoever trusts it trusts this key, not a date.
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2120, 1, 1));
    let certificate = params.self_signed(&pair).map_err(text)?;
    file.write_all(pair.serialize_pem().as_bytes()).map_err(|error| format!("the key cannot be written: {error}"))?;
    Ok(certificate.pem())
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_is_held_and_belongs_to_its_certificate() {
        let mut file = Vec::new();
        let certificate = make("mx.example", &mut file).unwrap();
        let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let certificate = ringpost_tls::Certificate::parse(vec![der.to_vec()]).unwrap();
        assert_eq!(certificate.names(), ["mx.example"]);
        let keys = Keys::default();
        let purpose = KeyPurpose::TlsServer;
        assert_eq!(keys.hold(7, purpose, &mut &file[..]).unwrap(), certificate.public_key());
        assert!(keys.hold(7, purpose, &mut &file[..]).unwrap_err().contains("a key 7 already"));
        assert!(keys.get(7, purpose).is_some() && keys.get(8, purpose).is_none());
        keys.hold(8, purpose, &mut &file[..]).unwrap();
        keys.hold(FIRST_FOUND, purpose, &mut &file[..]).unwrap();
        keys.keep(&[8]);
        assert!(keys.get(7, purpose).is_none() && keys.get(8, purpose).is_some());
        for number in 1..=FOUND_KEYS as u32 {
            assert!(keys.get(FIRST_FOUND, purpose).is_some(), "{number}");
            keys.hold(FIRST_FOUND + number, purpose, &mut &file[..]).unwrap();
        }
        assert!(keys.get(FIRST_FOUND, purpose).is_none() && keys.get(8, purpose).is_some());
    }

    #[test]
    fn keys_of_all_kinds_are_read() {
        use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
        let pairs = [
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyPair::generate_for(&PKCS_ED25519),
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        ];
        for pair in pairs.map(Result::unwrap) {
            let made = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
            let certificate = ringpost_tls::Certificate::parse(vec![made.der().to_vec()]).unwrap();
            let key = parse(pair.serialize_pem().as_bytes()).unwrap();
            assert_eq!(public_key(&key).unwrap(), certificate.public_key());
        }
    }

    #[test]
    fn bad_files_say_what_to_do() {
        let why = |text: &str| parse(text.as_bytes()).map(|_| ()).unwrap_err();
        assert!(why("").starts_with("there is no private key in it"));
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(why(certificate).starts_with("there is no private key in it"));
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(why(nonsense).contains("RSA with 2048"), "{}", why(nonsense));
        assert!(why("-----BEGIN PRIVATE KEY-----\nAA").contains("PEM is damaged"));
        assert!(why("-----BEGIN ENCRYPTED PRIVATE KEY-----\n").contains("openssl pkey"));
        assert!(why("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n").contains("pass phrase"));
        assert!(why(&"x".repeat(KEY_BYTES as usize + 1)).contains("is it a key at all?"));
    }
}
