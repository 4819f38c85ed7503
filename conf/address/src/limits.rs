//! Lengths of addresses, in octets.

/// Longest local part (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Longest domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Longest label of a domain (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest mailbox that any path can carry (RFC 5321 §4.5.3.1.3 counts 256 with the angle brackets).
pub const MAILBOX_BYTES_MAX: usize = 254;
/// Texts up to this length are folded on the stack: every legal address fits.
pub const FOLDED_BYTES: usize = 320;

const _: () = assert!(FOLDED_BYTES >= LOCAL_PART_BYTES_MAX + 1 + DOMAIN_BYTES_MAX, "a legal address must not allocate");
