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
    /// Hosts are black holes for a while, and come back.
    pub hosts: bool,
    /// Receivers answer 4xx and 5xx, say that they have too much, fall silent, or hang up.
    pub peers: bool,
    /// The DNS and tables fail or are silent for a while, and answers change, are empty, wrong, or point nowhere.
    pub names: bool,
    /// Programs that mail is delivered to fail or hang.
    pub programs: bool,
    /// The clock on the wall is set forwards and backwards.
    pub clock: bool,
    /// An administrator sets limits of routes and takes them back.
    pub limits: bool,
    /// Planted, for the test of the judge: the disk says "durable" and forgets at a crash.
    pub lying_disk: bool,
    /// Planted: the journal leaves the generation out of its checksum.
    pub no_generation: bool,
    /// Planted, for the test of the auditor: some envelopes that are due are taken out of the queue and dropped.
    pub forgets_claims: bool,
    /// Planted, for the test of the watch: some mail that has come to its route wakes nobody who would carry it.
    pub loses_wakes: bool,
    /// Planted, likewise: what waits for its turn at a route or a program is not looked after when its time is over.
    pub misses_expiry: bool,
}

impl Faults {
    /// Everything that can happen to a correct server.
    pub const ALL: Faults = Faults {
        crash: true,
        disk: true,
        full: true,
        net: true,
        hosts: true,
        peers: true,
        names: true,
        programs: true,
        clock: true,
        limits: true,
        ..Self::NONE
    };
    /// A perfect world.
    pub const NONE: Faults = Faults {
        crash: false,
        disk: false,
        full: false,
        net: false,
        hosts: false,
        peers: false,
        names: false,
        programs: false,
        clock: false,
        limits: false,
        lying_disk: false,
        no_generation: false,
        forgets_claims: false,
        loses_wakes: false,
        misses_expiry: false,
    };

    /// Only the bugs that are planted.
    pub(crate) fn planted(self) -> Faults {
        self.planted_in(Self::NONE)
    }

    /// Without those that end an engine or its disk.
    pub(crate) fn outside(self) -> Faults {
        Self { crash: false, disk: false, full: false, ..self }
    }

    fn planted_in(self, world: Faults) -> Faults {
        let Self { lying_disk, no_generation, forgets_claims, loses_wakes, misses_expiry, .. } = self;
        Self { lying_disk, no_generation, forgets_claims, loses_wakes, misses_expiry, ..world }
    }
}

/// The name of no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown fault '{0}': known are crash, disk, full, net, hosts, peers, names, programs, clock, limits, none, all, \
         lying-disk, no-generation, forgets-claims, loses-wakes, misses-expiry"
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
                "hosts" => faults.hosts = true,
                "peers" => faults.peers = true,
                "names" => faults.names = true,
                "programs" => faults.programs = true,
                "clock" => faults.clock = true,
                "limits" => faults.limits = true,
                "lying-disk" => faults.lying_disk = true,
                "no-generation" => faults.no_generation = true,
                "forgets-claims" => faults.forgets_claims = true,
                "loses-wakes" => faults.loses_wakes = true,
                "misses-expiry" => faults.misses_expiry = true,
                "none" => {}
                "all" => faults = faults.planted_in(Self::ALL),
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
