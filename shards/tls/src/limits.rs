//! Every bound of this room, with the reason for it.

/// Certificates in a chain: a public one has two or three, and each is sent in every full handshake.
pub const CHAIN_MAX: usize = 10;
/// Bytes of a server name that are told (RFC 1035 §2.3.4: a name has at most 255).
pub const SERVER_NAME_BYTES_MAX: usize = 255;
/// What a signature is asked over: 64 blanks, a label and a hash (RFC 8446 §4.4.3), or two randoms and the parameters of the
/// key exchange (RFC 8422 §5.4), the largest of which is a point of P-521.
pub const TRANSCRIPT_BYTES_MAX: usize = 256;

/// Servers whose sessions are kept to be resumed.
pub const SESSIONS_MAX: usize = 4096;
