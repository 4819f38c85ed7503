//! Every bound of this room, with the reason for it.

/// Certificates in a chain: a public one has two or three, and each is sent in every full handshake.
pub const CHAIN_MAX: usize = 10;
/// Bytes of a server name that are told (RFC 1035 §2.3.4: a name has at most 255).
pub const SERVER_NAME_BYTES_MAX: usize = 255;
/// What a signature is asked over. Of a server 256 bytes would do: 64 blanks, a label and a hash (RFC 8446 §4.4.3), or two randoms
/// and a point (RFC 8422 §5.4). A client of TLS 1.2 signs all that was said (RFC 5246 §7.4.8): two chains of certificates, and
/// the names of all whom the server trusts.
pub const TRANSCRIPT_BYTES_MAX: usize = 48 * 1024;

/// Servers whose sessions are kept to be resumed.
pub const SESSIONS_MAX: usize = 4096;

/// State of a session that becomes a ticket: a client's chain has some 6,000, and the message that carries it has at most 65,535.
pub const TICKET_BYTES_MAX: usize = 16 * 1024;
/// Certificates of tables that lie ready, one for each name.
pub const SHELF_MAX: usize = 1024;
/// Names of a certificate that are looked at: a person or a program has a few.
pub const SUBJECT_NAMES_MAX: usize = 32;
/// Bytes of such a name (RFC 5321 §4.5.3.1: a local part and a domain).
pub const SUBJECT_NAME_BYTES_MAX: usize = 320;
/// TLSA records of a host that are held against a certificate: a host in the middle of a change of keys has four.
pub const TLSA_MAX: usize = 32;
