//! Hashes as directories have them (RFC 2307 and what came after it): `{SSHA}`, base64 of a digest and the salt behind it.

use aws_lc_rs::digest::{self, Algorithm};

use super::check::Checked;

/// `scheme` in capitals, without its braces.
pub fn check(password: &str, scheme: &str, text: &str) -> Checked {
    let (algorithm, is_salted) = match scheme {
        "SHA" => (&digest::SHA1_FOR_LEGACY_USE_ONLY, false),
        "SSHA" => (&digest::SHA1_FOR_LEGACY_USE_ONLY, true),
        "SHA256" => (&digest::SHA256, false),
        "SSHA256" => (&digest::SHA256, true),
        "SHA384" => (&digest::SHA384, false),
        "SSHA384" => (&digest::SHA384, true),
        "SHA512" => (&digest::SHA512, false),
        "SSHA512" => (&digest::SHA512, true),
        _ => return Checked::Unusable("a scheme that is not known here, or no longer safe"),
    };
    let bytes = super::decode(text).unwrap_or_default();
    match bytes.split_at_checked(algorithm.output_len()) {
        Some((expected, salt)) if salt.is_empty() != is_salted => {
            Checked::of(super::is_same(&digest_of(algorithm, password, salt), expected))
        }
        _ => Checked::Unusable("a hash that is cut off or damaged"),
    }
}

/// Of password and salt.
pub fn digest_of(algorithm: &'static Algorithm, password: &str, salt: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(algorithm);
    context.update(password.as_bytes());
    context.update(salt);
    context.finish().as_ref().to_vec()
}
