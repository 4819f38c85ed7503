//! Signatures, and over what. The engine may be in a stranger's hands: it can then make handshakes, but the keys sign
//! nothing that means anything elsewhere, such as a certificate or a message.

use rustls::SignatureScheme;

use super::keys::Keys;
use crate::ipc::keyholder::{KeyPurpose, SignRequest};

/// What stands before the hash of a server's handshake in TLS 1.3 (RFC 8446 §4.4.3), behind 64 blanks.
const SERVER_LABEL: &[u8] = b"TLS 1.3, server CertificateVerify\0";
/// And before that of a client's.
const CLIENT_LABEL: &[u8] = b"TLS 1.3, client CertificateVerify\0";
/// How many blanks.
const BLANKS: usize = 64;
/// Bytes of a hash: SHA-256, SHA-384.
const HASHES: [usize; 2] = [32, 48];
/// Two randoms stand before the parameters of the key exchange in TLS 1.2 (RFC 8422 §5.4).
const RANDOMS: usize = 64;
/// `named_curve` (RFC 8422 §5.4).
const NAMED_CURVE: u8 = 3;
/// secp256r1, secp384r1, secp521r1 and x25519, with the length of a point.
const CURVES: [(u16, usize); 4] = [(23, 65), (24, 97), (25, 133), (29, 32)];
/// What has been said when a client of TLS 1.2 shows that it has the key (RFC 5246 §7.3, §7.4.8): its hello and the server's,
/// the server's certificate, what the certificate's issuer says of it (RFC 6066 §8), the key exchange, what is asked of the
/// client, the end of that; then the client's certificate and its part of the key exchange.
const CLIENT_STEPS: [u8; 9] = [1, 2, 11, 22, 12, 13, 14, 11, 16];
/// The one of them that may be missing.
const STATUS: u8 = 22;

/// Signs a handshake.
///
/// # Errors
/// It is none, or there is no such key.
pub fn sign(keys: &Keys, request: &SignRequest) -> Result<Vec<u8>, String> {
    let purpose = purpose(&request.transcript).ok_or("the keyholder signs handshakes alone")?;
    let key = keys.get(request.key, purpose);
    let key = key.ok_or_else(|| format!("the keyholder has no key {}", request.key))?;
    let signer = key.choose_scheme(&[SignatureScheme::from(request.scheme)]);
    let signer =
        signer.ok_or_else(|| format!("key {} makes no signatures of kind {:#06x}", request.key, request.scheme))?;
    signer.sign(&request.transcript).map_err(|error| format!("key {} cannot sign: {error}", request.key))
}

/// Whose handshake this is.
fn purpose(transcript: &[u8]) -> Option<KeyPurpose> {
    if is_server_handshake(transcript) {
        return Some(KeyPurpose::TlsServer);
    }
    is_client_handshake(transcript).then_some(KeyPurpose::TlsClient)
}

/// What TLS 1.3 has signed, with this label.
fn hash<'t>(transcript: &'t [u8], label: &[u8]) -> Option<&'t [u8]> {
    let (blanks, rest) = transcript.split_at_checked(BLANKS)?;
    let blank = blanks.iter().all(|byte| *byte == b' ');
    rest.strip_prefix(label).filter(|_| blank)
}

/// Whether this is what a client signs, in TLS 1.3 or 1.2.
fn is_client_handshake(transcript: &[u8]) -> bool {
    if let Some(hash) = hash(transcript, CLIENT_LABEL) {
        return HASHES.contains(&hash.len());
    }
    let mut rest = transcript;
    for expected in CLIENT_STEPS {
        let [kind, high, middle, low, body @ ..] = rest else { return false };
        if *kind != expected && expected == STATUS {
            continue;
        }
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let Some((_, behind)) = body.split_at_checked(length).filter(|_| *kind == expected) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Whether this is what a server signs, in TLS 1.3 or 1.2, byte for byte.
fn is_server_handshake(transcript: &[u8]) -> bool {
    if let Some(hash) = hash(transcript, SERVER_LABEL) {
        return HASHES.contains(&hash.len());
    }
    let Some((_, parameters)) = transcript.split_at_checked(RANDOMS) else { return false };
    let [NAMED_CURVE, high, low, length, point @ ..] = parameters else { return false };
    let curve = (u16::from_be_bytes([*high, *low]), usize::from(*length));
    CURVES.contains(&curve) && point.len() == curve.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls13(hash: usize) -> Vec<u8> {
        [&[b' '; 64][..], SERVER_LABEL, &vec![7; hash]].concat()
    }

    fn tls12(curve: u16, point: usize) -> Vec<u8> {
        [&[7; 64][..], &[NAMED_CURVE], &curve.to_be_bytes(), &[point as u8], &vec![4; point]].concat()
    }

    #[test]
    fn handshakes_of_servers_and_nothing_else() {
        for good in [tls13(32), tls13(48), tls12(23, 65), tls12(29, 32)] {
            assert!(is_server_handshake(&good), "{} bytes", good.len());
            assert!(!is_server_handshake(&good[1..]));
            assert!(!is_server_handshake(&good[..good.len() - 1]));
            assert!(!is_server_handshake(&[&good[..], b"x"].concat()));
        }
        let client = of_client(tls13(32));
        let mail = b"from:a@b.example\r\ndkim-signature:v=1; a=rsa-sha256; b=".repeat(3);
        for bad in [client, mail, tls13(20), tls12(23, 64), tls12(30, 56), vec![], vec![b' '; 64], vec![3; 200]] {
            assert!(!is_server_handshake(&bad), "{:?}", String::from_utf8_lossy(&bad));
        }
    }

    fn of_client(transcript: Vec<u8>) -> Vec<u8> {
        String::from_utf8(transcript).unwrap().replace("server", "client").into_bytes()
    }

    #[test]
    fn handshakes_of_clients_and_nothing_else() {
        let messages = |kinds: &[u8]| -> Vec<u8> { kinds.iter().flat_map(|kind| [*kind, 0, 0, 2, 7, 7]).collect() };
        let old = messages(&CLIENT_STEPS);
        for good in [of_client(tls13(32)), of_client(tls13(48)), old.clone(), messages(&[1, 2, 11, 12, 13, 14, 11, 16])]
        {
            assert_eq!(purpose(&good), Some(KeyPurpose::TlsClient));
            assert_eq!(purpose(&good[..good.len() - 1]), None);
            assert_eq!(purpose(&[&good[..], b"x"].concat()), None);
        }
        for bad in [tls13(32), messages(&[1, 2, 11, 12, 13, 14, 11]), messages(&[2, 11, 16]), Vec::new()] {
            assert!(!is_client_handshake(&bad));
        }
    }

    #[test]
    fn a_key_of_one_side_signs_nothing_of_the_other() {
        let mut file = Vec::new();
        super::super::keys::make("mx.example", &mut file).unwrap();
        let keys = Keys::default();
        keys.hold(1, KeyPurpose::TlsServer, &mut &file[..]).unwrap();
        keys.hold(2, KeyPurpose::TlsClient, &mut &file[..]).unwrap();
        let ask = |key, transcript| {
            let scheme = SignatureScheme::ECDSA_NISTP256_SHA256.into();
            sign(&keys, &SignRequest { key, scheme, transcript })
        };
        assert!(ask(1, tls13(32)).is_ok() && ask(2, of_client(tls13(32))).is_ok());
        assert!(ask(2, tls13(32)).is_err() && ask(1, of_client(tls13(32))).is_err());
    }

    #[test]
    fn what_cannot_be_signed_is_refused_in_words() {
        let mut file = Vec::new();
        super::super::keys::make("mx.example", &mut file).unwrap();
        let keys = Keys::default();
        keys.hold(1, KeyPurpose::TlsServer, &mut &file[..]).unwrap();
        let ask = |key, scheme: SignatureScheme, transcript| {
            sign(&keys, &SignRequest { key, scheme: scheme.into(), transcript })
        };
        assert!(ask(1, SignatureScheme::ECDSA_NISTP256_SHA256, tls13(32)).is_ok());
        let why = ask(1, SignatureScheme::RSA_PSS_SHA256, tls13(32)).unwrap_err();
        assert_eq!(why, "key 1 makes no signatures of kind 0x0804");
        let why = ask(2, SignatureScheme::ECDSA_NISTP256_SHA256, tls13(32)).unwrap_err();
        assert_eq!(why, "the keyholder has no key 2");
        let why = ask(1, SignatureScheme::ECDSA_NISTP256_SHA256, b"anything".to_vec()).unwrap_err();
        assert_eq!(why, "the keyholder signs handshakes alone");
    }
}
