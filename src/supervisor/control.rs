//! The control socket: where the configuration wants it, and whom its group and mode let in. In the state directory there is
//! always a name for it, by which this machine's commands find it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use ringpost_conf::{Config, Control};
use ringpost_io::sys;

use super::sockets::{put_in_place, socket_refused};
use super::state::control_path;
use crate::exit::{Code, Failure};
use crate::plan::Plan;

/// Of a socket that only its owner and root may use.
const OWNER: u32 = 0o600;
/// Of one that has a group, where no mode is said.
const GROUP: u32 = 0o660;

/// Binds it. `names` gets what is to be removed at the end. Called with the state directory's lock held.
///
/// # Errors
/// The path cannot be used, or there is no such group.
pub fn bind(plan: &Plan, config: &Config, names: &mut Vec<PathBuf>) -> Result<UnixListener, Failure> {
    let Control { group, mode, .. } = &config.control;
    let usual = control_path(&plan.state);
    let path = place(plan, config);
    let owner = group.as_ref().map(|name| gid(name, plan)).transpose()?;
    let bound = (|| {
        let listener = put_in_place(&path, |path| {
            let listener = UnixListener::bind(path)?;
            if let Some(gid) = owner {
                chown(path, None, Some(gid))?;
            }
            let default = if group.is_some() { GROUP } else { OWNER };
            fs::set_permissions(path, Permissions::from_mode(mode.unwrap_or(default)))?;
            Ok(listener)
        })?;
        if path != usual {
            let target = std::path::absolute(&path)?;
            put_in_place(&usual, |usual| symlink(&target, usual))?;
        }
        Ok::<_, io::Error>(listener)
    })();
    let listener = bound.map_err(|error| socket_refused("control", &path, &error))?;
    if path != usual {
        names.push(path);
    }
    Ok(listener)
}

/// In the state directory, unless a line of the configuration says otherwise.
pub fn place(plan: &Plan, config: &Config) -> PathBuf {
    match config.setting_lines.contains_key("control") {
        true => config.control.socket.clone(),
        false => control_path(&plan.state),
    }
}

fn gid(name: &str, plan: &Plan) -> Result<u32, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = plan.root.as_ref().map_or_else(|| sys::group(name), |root| sys::group_below(root, name));
    let wrong = |why: String| Failure::new(Code::NoUser, format!("control socket: group {name}: {why}"));
    match found {
        Ok(Some(gid)) => Ok(gid),
        Ok(None) => Err(wrong("there is no such group; make it, or name another".into())),
        Err(error) => Err(wrong(error.to_string())),
    }
}
