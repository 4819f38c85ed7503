//! Signatures, and over what. The engine may be in a stranger's hands: it can then make handshakes, but the keys sign
//! nothing that means anything elsewhere, such as a certificate or a message.

use rustls::SignatureScheme;

use super::keys::Keys;
use crate::ipc::keyholder::{KeyPurpose, SignRequest};

/// What stands before the hash of a server's handshake in TLS 1.3 (RFC 8446 §4.4.3), behind 64 blanks.
const SERVER_LABEL: &[u8] = b"TLS 1.3, server CertificateVerify\0";
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

/// Signs a handshake.
///
/// # Errors
/// It is none, or there is no such key.
pub fn sign(keys: &Keys, request: &SignRequest) -> Result<Vec<u8>, String> {
    if !is_server_handshake(&request.transcript) {
        return Err("the keyholder signs handshakes alone".to_owned());
    }
    let key = keys.get(request.key, KeyPurpose::TlsServer);
    let key = key.ok_or_else(|| format!("the keyholder has no key {}", request.key))?;
    let signer = key.choose_scheme(&[SignatureScheme::from(request.scheme)]);
    let signer =
        signer.ok_or_else(|| format!("key {} makes no signatures of kind {:#06x}", request.key, request.scheme))?;
    signer.sign(&request.transcript).map_err(|error| format!("key {} cannot sign: {error}", request.key))
}

/// Whether this is what a server signs, in TLS 1.3 or 1.2, byte for byte.
fn is_server_handshake(transcript: &[u8]) -> bool {
    if let Some((blanks, rest)) = transcript.split_at_checked(BLANKS)
        && blanks.iter().all(|byte| *byte == b' ')
        && let Some(hash) = rest.strip_prefix(SERVER_LABEL)
    {
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
        let client = String::from_utf8(tls13(32)).unwrap().replace("server", "client").into_bytes();
        let mail = b"from:a@b.example\r\ndkim-signature:v=1; a=rsa-sha256; b=".repeat(3);
        for bad in [client, mail, tls13(20), tls12(23, 64), tls12(30, 56), vec![], vec![b' '; 64], vec![3; 200]] {
            assert!(!is_server_handshake(&bad), "{:?}", String::from_utf8_lossy(&bad));
        }
    }

    #[test]
    fn what_cannot_be_signed_is_refused_in_words() {
        let mut file = Vec::new();
        super::super::keys::make("mx.example", &mut file).unwrap();
        let keys = Keys::default();
        keys.hold(1, KeyPurpose::TlsServer, &mut &file[..]).unwrap();
        let ask = |key, scheme: SignatureScheme, transcript| {
            sign(&keys, &SignRequest { number: 1, key, scheme: scheme.into(), transcript })
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
