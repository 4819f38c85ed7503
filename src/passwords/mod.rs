//! Passwords and their hashes: whether one fits the other (`check`), and how one is made (`make`). Whoever may wait does this:
//! a thread of the coordinator's, one of the supervisor's, or the command line. All comparisons take constant time.

mod check;
mod crypt;
mod directory;
mod make;
mod pbkdf2;
mod prepare;
pub mod scram;

pub use self::check::{Checked, check};
pub use self::make::{Scheme, hash};

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};

/// Base64 as hashes have it, with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn decode(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text).ok()
}

fn encode(bytes: &[u8]) -> String {
    general_purpose::STANDARD.encode(bytes)
}

fn is_same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Bytes that nobody can foresee; `None`: the system has no randomness.
pub fn nonce<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).is_ok().then_some(bytes)
}

fn random<const N: usize>() -> [u8; N] {
    nonce().expect("the system has randomness")
}
