//! PAM: whether a password is a user's, and whether he may log in (pam(3), Linux-PAM). The modules are foreign code that may
//! wait, ask name services and start programs: to be called in a process of its own, which has a deadline.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::limits::PAM_MESSAGES_MAX;

/// What PAM says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pam {
    /// It is his password, and he may log in.
    Right,
    /// It is not, there is no such user, or he may not log in: which of them is nobody's business.
    Wrong,
    /// It cannot say now, and why.
    Failed(String),
}

/// Asks the modules that `/etc/pam.d/SERVICE` names, or `SERVICE` in `confdir`: `auth`, then `account`. The copies of the
/// password that are made here are the modules' to wipe, and they do.
///
/// # Errors
/// A name or a password with a zero byte in it, which nobody has.
pub fn pam(service: &str, confdir: Option<&Path>, user: &str, password: &str) -> io::Result<Pam> {
    let secret = Secret(CString::new(password)?);
    let (service, user) = (CString::new(service)?, CString::new(user)?);
    let confdir = confdir.map(|dir| CString::new(dir.as_os_str().as_bytes())).transpose()?;
    let conversation = Conversation { ask: answer, data: ptr::from_ref(&secret).cast_mut().cast() };
    let mut handle: *mut Handle = ptr::null_mut();
    let confdir = confdir.as_ref().map_or(ptr::null(), |dir| dir.as_ptr());
    // SAFETY: the texts end with NUL, a directory may be null (pam_start_confdir(3)), and all of them and the conversation
    // outlive the handle, which `Transaction` ends.
    let started = unsafe {
        pam_start_confdir(service.as_ptr(), user.as_ptr(), &raw const conversation, confdir, &raw mut handle)
    };
    if started != SUCCESS || handle.is_null() {
        return Ok(Pam::Failed(format!("PAM cannot be started (code {started})")));
    }
    let mut transaction = Transaction { handle, last: SUCCESS };
    // SAFETY: the handle is open; the item is a function of this shape (pam_fail_delay(3)), which stays.
    unsafe { pam_set_item(handle, FAIL_DELAY, no_delay as extern "C" fn(c_int, c_uint, *mut c_void) as *const c_void) };
    for step in [pam_authenticate, pam_acct_mgmt] {
        // SAFETY: the handle is one that was started and has not ended.
        transaction.last = unsafe { step(transaction.handle, SILENT | DISALLOW_NULL_AUTHTOK) };
        if transaction.last != SUCCESS {
            return Ok(verdict(transaction.last, &transaction.why()));
        }
    }
    Ok(Pam::Right)
}

/// Codes of `_pam_types.h`, Linux-PAM.
const SUCCESS: c_int = 0;
const PERM_DENIED: c_int = 6;
const AUTH_ERR: c_int = 7;
const USER_UNKNOWN: c_int = 10;
const MAXTRIES: c_int = 11;
const NEW_AUTHTOK_REQD: c_int = 12;
const ACCT_EXPIRED: c_int = 13;
const CRED_EXPIRED: c_int = 16;
const CONV_ERR: c_int = 19;
const AUTHTOK_EXPIRED: c_int = 27;
const BUF_ERR: c_int = 5;

const SILENT: c_int = 0x8000;
const DISALLOW_NULL_AUTHTOK: c_int = 0x1;

/// The item that says how long a failure takes.
const FAIL_DELAY: c_int = 10;

/// A failure takes no time here: one user's must keep no other waiting, and who guesses is slowed down elsewhere.
extern "C" fn no_delay(_code: c_int, _delay_us: c_uint, _data: *mut c_void) {}

/// Kinds of messages: a question whose answer is not shown. All others want none.
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;

fn verdict(code: c_int, why: &str) -> Pam {
    match code {
        // An account that is over, or whose password is: no later attempt will do better until an administrator has mended it.
        PERM_DENIED | AUTH_ERR | USER_UNKNOWN | MAXTRIES | NEW_AUTHTOK_REQD | ACCT_EXPIRED | CRED_EXPIRED
        | AUTHTOK_EXPIRED => Pam::Wrong,
        _ => Pam::Failed(format!("PAM: {why}")),
    }
}

/// A password, wiped at the end.
struct Secret(CString);

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        // SAFETY: the pointer and length are those of the vector, which nobody else has.
        unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
    }
}

/// A started conversation with the modules, which ends with it.
struct Transaction {
    handle: *mut Handle,
    last: c_int,
}

impl Transaction {
    fn why(&self) -> String {
        // SAFETY: the handle is open; the text is the library's, never null, and stays.
        let text = unsafe { pam_strerror(self.handle, self.last) };
        match text.is_null() {
            true => format!("code {}", self.last),
            // SAFETY: a string that ends with NUL.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and is used no more.
        unsafe { pam_end(self.handle, self.last) };
    }
}

/// What the modules call when they want to know something: each question gets the password. A question that would be shown
/// is another one (a name, a code), and nobody is here to answer it.
extern "C" fn answer(
    count: c_int,
    messages: *mut *const Message,
    answers: *mut *mut Answer,
    data: *mut c_void,
) -> c_int {
    let Some(wanted) = usize::try_from(count).ok().filter(|count| (1..=PAM_MESSAGES_MAX).contains(count)) else {
        return CONV_ERR;
    };
    // SAFETY: `data` is what `pam` has given: the secret, which outlives the conversation.
    let secret = unsafe { &*data.cast::<Secret>() };
    // SAFETY: takes numbers; zeroed memory is an array of answers without texts. Its owner becomes the module (pam_conv(3)).
    let made: *mut Answer = unsafe { libc::calloc(wanted, size_of::<Answer>()) }.cast();
    if made.is_null() {
        return BUF_ERR;
    }
    for number in 0..wanted {
        // SAFETY: so many messages there are, by pointers to each (Linux-PAM's reading of pam_conv(3)).
        let kind = unsafe { (**messages.add(number)).kind };
        let text = match kind {
            // SAFETY: a string that ends with NUL; the copy is the module's to free.
            PROMPT_ECHO_OFF => unsafe { libc::strdup(secret.0.as_ptr()) },
            PROMPT_ECHO_ON => ptr::null_mut(),
            _ => continue,
        };
        if text.is_null() {
            // SAFETY: `made` and the texts in it were made above, and nobody else has them yet.
            unsafe { give_up(made, number) };
            return if kind == PROMPT_ECHO_ON { CONV_ERR } else { BUF_ERR };
        }
        // SAFETY: within the array.
        unsafe { (*made.add(number)).text = text };
    }
    // SAFETY: the module's own variable.
    unsafe { *answers = made };
    SUCCESS
}

/// Frees answers that nobody gets.
///
/// # Safety
/// `made` is an array of `calloc` with at least so many answers, whose texts are `strdup`'s or null.
// SAFETY: as it says above.
unsafe fn give_up(made: *mut Answer, count: usize) {
    for number in 0..count {
        // SAFETY: as the caller says.
        let text = unsafe { (*made.add(number)).text };
        if !text.is_null() {
            // SAFETY: as the caller says.
            unsafe { libc::explicit_bzero(text.cast(), libc::strlen(text)) };
            // SAFETY: as the caller says.
            unsafe { libc::free(text.cast()) };
        }
    }
    // SAFETY: as the caller says.
    unsafe { libc::free(made.cast()) };
}

/// `pam_handle_t`; the library's alone.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

/// `struct pam_message`.
#[repr(C)]
struct Message {
    kind: c_int,
    _text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
struct Answer {
    text: *mut c_char,
    _unused: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
struct Conversation {
    ask: extern "C" fn(c_int, *mut *const Message, *mut *mut Answer, *mut c_void) -> c_int,
    data: *mut c_void,
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        confdir: *const c_char,
        handle: *mut *mut Handle,
    ) -> c_int;
    fn pam_set_item(handle: *mut Handle, item: c_int, value: *const c_void) -> c_int;
    fn pam_authenticate(handle: *mut Handle, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut Handle, flags: c_int) -> c_int;
    fn pam_end(handle: *mut Handle, status: c_int) -> c_int;
    fn pam_strerror(handle: *mut Handle, code: c_int) -> *const c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(lines: &str, user: &str, password: &str) -> Pam {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ringpost"), lines).expect("written");
        pam("ringpost", Some(dir.path()), user, password).expect("no zero bytes")
    }

    #[test]
    fn the_modules_of_the_service_decide() {
        let permit = "auth required pam_permit.so\naccount required pam_permit.so\n";
        assert_eq!(ask(permit, "root", "x"), Pam::Right);
        let deny = "auth required pam_deny.so\naccount required pam_permit.so\n";
        assert_eq!(ask(deny, "root", "x"), Pam::Wrong);
        let over = "auth required pam_permit.so\naccount required pam_deny.so\n";
        assert_ne!(ask(over, "root", "x"), Pam::Right, "who may not log in does not");
    }

    #[test]
    fn a_service_that_is_not_there_says_nothing_of_a_password() {
        let dir = tempfile::tempdir().expect("a directory");
        let said = pam("ringpost", Some(dir.path()), "root", "x").expect("no zero bytes");
        assert!(matches!(said, Pam::Failed(_)), "{said:?}");
        let broken = "auth required pam_no_such_module.so\naccount required pam_permit.so\n";
        assert!(matches!(ask(broken, "root", "x"), Pam::Failed(_)));
        assert!(pam("ringpost", None, "a\0b", "x").is_err() && pam("ringpost", None, "a", "\0").is_err());
    }

    #[test]
    fn the_password_reaches_the_modules() {
        // It reads the password from its standard input, followed by NUL.
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("is-it");
        std::fs::write(&path, "#!/bin/sh\n[ \"$(tr -d '\\0')\" = 'to ps$cret' ]\n").expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("ours");
        let lines = format!(
            "auth required pam_exec.so expose_authtok quiet {}\naccount required pam_permit.so\n",
            path.display()
        );
        assert_eq!(ask(&lines, "root", "to ps$cret"), Pam::Right);
        assert_ne!(ask(&lines, "root", "topsecret"), Pam::Right);
    }

    #[test]
    fn strangers_and_wrong_passwords_are_wrong() {
        let unix = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n";
        assert_eq!(ask(unix, "ringpost-no-such-user", "x"), Pam::Wrong);
        assert_eq!(ask(unix, "daemon", "x"), Pam::Wrong, "an account that is locked");
    }

    #[test]
    fn codes_say_whether_it_is_the_password_or_the_system() {
        // PAM_AUTHINFO_UNAVAIL, PAM_SYSTEM_ERR, PAM_SERVICE_ERR, PAM_ABORT, PAM_CRED_INSUFFICIENT, PAM_MODULE_UNKNOWN.
        for code in [9, 4, 3, 26, 8, 28] {
            assert!(matches!(verdict(code, "x"), Pam::Failed(_)), "{code}");
        }
        for code in [6, 7, 10, 11, 12, 13, 16, 27] {
            assert_eq!(verdict(code, "x"), Pam::Wrong, "{code}");
        }
    }
}
