//! Bounds of what is read from and written into messages.

/// Bytes of a header that are scanned; what follows is treated as text.
pub const HEADER_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of a `From:` that are kept until it is rewritten: ten lines of the longest kind. The name in a longer one is dropped.
pub const MASQUERADED_BYTES_MAX: usize = 10_000;
/// Bytes of the original's header that a report carries.
pub const REPORTED_HEADER_BYTES_MAX: usize = 32 * 1024;
/// Recipients that one report names; the rest is counted.
pub const REPORTED_RECIPIENTS_MAX: usize = 1000;
/// Bytes of a foreign word (HELO name, address, reply) that are written into a field.
pub const FOREIGN_BYTES_MAX: usize = 512;
/// Bytes of what a program has said that a report shows its sender: as much as is kept of it.
pub const REPORTED_OUTPUT_BYTES_MAX: usize = 4096;
/// Recipients of a report of another server that are told of; the rest is counted.
pub const FEEDBACK_RECIPIENTS_MAX: usize = 64;
/// Bytes of a field of such a report, unfolded, that are looked at.
pub const FEEDBACK_FIELD_BYTES_MAX: usize = 2048;
/// Bytes of an address or a name in it that are kept (RFC 5321 §4.5.3.1.3), with room for a few that are too long.
pub const FEEDBACK_ADDRESS_BYTES_MAX: usize = 320;
/// Bytes of what a server has said that are kept: as much as tells what was wrong.
pub const FEEDBACK_TEXT_BYTES_MAX: usize = 256;
/// Bytes of a word in it (kind, program, envelope identifier) that are kept (RFC 3461 §5.4: 100 for ENVID).
pub const FEEDBACK_WORD_BYTES_MAX: usize = 100;
/// Bytes that a part of it in base64 or quoted-printable is decoded to: thousands of recipients. What is behind is not read.
pub const FEEDBACK_DECODED_BYTES_MAX: usize = 1024 * 1024;
/// Longest boundary between parts (RFC 2046 §5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;
/// Lines that we make are at most this long where a blank allows it (RFC 5322 §2.1.1).
pub const LINE_BYTES: usize = 78;
/// Lines are never longer than this, CRLF not counted (RFC 5322 §2.1.1).
pub const LINE_BYTES_MAX: usize = 998;

const _: () = assert!(FOREIGN_BYTES_MAX + 200 < LINE_BYTES_MAX, "a field with one foreign word fits a line");
