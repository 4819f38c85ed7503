//! How a command ends: an exit code of sysexits.h and a text that says what to do.

use std::process::ExitCode;

/// What went wrong, whose fault it is by the code, and the remedy in the text's last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// Without the leading `ringpost: `; several lines if need be. Empty: all has been said.
    pub text: String,
}

/// Codes of sysexits.h that this program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Something failed in the ordinary way (a comparison, a check).
    Failed = 1,
    /// EX_USAGE: the command line makes no sense.
    Usage = 64,
    /// EX_DATAERR: what was given is malformed.
    Data = 65,
    /// EX_NOINPUT: what was named does not exist.
    NoInput = 66,
    /// EX_NOUSER: a recipient is not known.
    NoUser = 67,
    /// EX_UNAVAILABLE: something needed is taken or not running.
    Unavailable = 69,
    /// EX_SOFTWARE: our own fault.
    Software = 70,
    /// EX_OSERR: the system refuses what is needed.
    System = 71,
    /// EX_CANTCREAT: a file or directory cannot be made.
    CannotCreate = 73,
    /// EX_IOERR: reading or writing failed.
    InputOutput = 74,
    /// EX_TEMPFAIL: try again.
    TryLater = 75,
    /// EX_NOPERM: not allowed.
    NotPermitted = 77,
    /// EX_CONFIG: the configuration has errors.
    Configuration = 78,
}

impl Failure {
    /// A failure with a text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Says it on standard error and gives the code.
    pub fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            eprintln!("ringpost: {}", self.text);
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::InputOutput, error.to_string())
    }
}
