//! Which faults a run may have. All are on by default; `--faults` names the ones to keep, to narrow a failure down.

use std::str::FromStr;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The engine is killed at random moments.
    pub crash: bool,
    /// Writes fail, are slow, or tear at a crash.
    pub disk: bool,
    /// The disk becomes full, and has space again.
    pub full: bool,
    /// Connections break, are refused, are slow.
    pub net: bool,
    /// Receivers answer 4xx and 5xx, or hang up.
    pub peers: bool,
    /// Names cannot be resolved for a while.
    pub names: bool,
    /// Planted, for the test of the judge: the disk says "durable" and forgets at a crash.
    pub lying_disk: bool,
    /// Planted: the journal leaves the generation out of its checksum.
    pub no_generation: bool,
    /// Planted, for the test of the auditor: some envelopes that are due are taken out of the queue and dropped.
    pub forgets_claims: bool,
}

impl Faults {
    /// Everything that can happen to a correct server.
    pub const ALL: Faults =
        Faults { crash: true, disk: true, full: true, net: true, peers: true, names: true, ..Self::NONE };
    /// A perfect world.
    pub const NONE: Faults = Faults {
        crash: false,
        disk: false,
        full: false,
        net: false,
        peers: false,
        names: false,
        lying_disk: false,
        no_generation: false,
        forgets_claims: false,
    };
}

/// The name of no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown fault '{0}': known are crash, disk, full, net, peers, names, none, all, lying-disk, no-generation, \
         forgets-claims"
)]
pub struct UnknownFault(pub String);

impl FromStr for Faults {
    type Err = UnknownFault;

    fn from_str(list: &str) -> Result<Self, UnknownFault> {
        let mut faults = Self::NONE;
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "crash" => faults.crash = true,
                "disk" => faults.disk = true,
                "full" => faults.full = true,
                "net" => faults.net = true,
                "peers" => faults.peers = true,
                "names" => faults.names = true,
                "lying-disk" => faults.lying_disk = true,
                "no-generation" => faults.no_generation = true,
                "forgets-claims" => faults.forgets_claims = true,
                "none" => {}
                "all" => {
                    let Self { lying_disk, no_generation, forgets_claims, .. } = faults;
                    faults = Self { lying_disk, no_generation, forgets_claims, ..Self::ALL }
                }
                unknown => return Err(UnknownFault(unknown.to_owned())),
            }
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_slips_are_named() {
        assert_eq!("crash,disk".parse(), Ok(Faults { crash: true, disk: true, ..Faults::NONE }));
        assert_eq!("all,lying-disk".parse(), Ok(Faults { lying_disk: true, ..Faults::ALL }));
        assert_eq!("crsh".parse::<Faults>(), Err(UnknownFault("crsh".into())));
    }
}
