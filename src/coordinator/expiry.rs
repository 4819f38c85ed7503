//! The end of certificates: looked at once a day, told when it comes near, and shown as a figure at any time. What is near at the
//! start or at a reload, the supervisor has told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringpost_perf::CertificateDays;
use ringpost_tls::Certificate;

use super::Coordinator;
use crate::certificates::Identity;
use crate::limits::CERTIFICATES_LOOKED_AT;

/// So many days ahead it is told, once each.
const TOLD_DAYS: [i64; 3] = [21, 7, 1];
const DAY_SECONDS: i64 = 86_400;

/// The certificates in use, by the name of their `pki`.
#[derive(Debug, Default)]
pub struct Expiry(Mutex<BTreeMap<String, Life>>);

/// A certificate's.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    /// Seconds since 1970.
    ends: i64,
    /// How many of the days ahead were told, and one more where it has ended.
    told: usize,
}

impl Expiry {
    /// These are in use from now on, and what is near was told.
    pub fn follow(&self, identities: &[Identity], now: SystemTime) {
        let mut lives = BTreeMap::new();
        for identity in identities {
            // Those that it has read itself are good.
            let Ok(certificate) = Certificate::parse(identity.chain.clone()) else { continue };
            let Some(pki) = identity.name.pki() else { continue };
            let ends = certificate.not_after();
            // Of several with one name, the first to end is the one to be told of.
            let life = lives.entry(pki.to_owned()).or_insert(Life { ends, told: 0 });
            life.ends = life.ends.min(ends);
            life.told = stage(days(life.ends, now));
        }
        *self.0.lock().expect("nobody panics with it") = lives;
    }

    /// How long each has left.
    pub fn days(&self, now: SystemTime) -> Vec<CertificateDays> {
        let lives = self.0.lock().expect("nobody panics with it");
        lives.iter().map(|(pki, life)| CertificateDays { pki: pki.clone(), days: days(life.ends, now) }).collect()
    }

    /// What must be told now, a line each.
    fn news(&self, now: SystemTime) -> Vec<String> {
        let mut lives = self.0.lock().expect("nobody panics with it");
        let mut news = Vec::new();
        for (pki, life) in lives.iter_mut() {
            let left = days(life.ends, now);
            let reached = stage(left);
            if reached > std::mem::replace(&mut life.told, reached) {
                news.push(match left {
                    ..0 => format!("the certificate of pki {pki} has expired: renew it, clients may refuse it"),
                    _ => format!("the certificate of pki {pki} expires in {left} days: renew it"),
                });
            }
        }
        news
    }
}

/// Whole days until then; negative when it is over.
fn days(ends: i64, now: SystemTime) -> i64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() as i64;
    (ends - now).div_euclid(DAY_SECONDS)
}

fn stage(days: i64) -> usize {
    TOLD_DAYS.iter().filter(|ahead| days < **ahead).count() + usize::from(days < 0)
}

/// Tells of what comes near, as long as the coordinator runs.
pub async fn watch(coordinator: Arc<Coordinator>) {
    loop {
        tokio::time::sleep(CERTIFICATES_LOOKED_AT).await;
        for line in coordinator.shards.certificates.news(SystemTime::now()) {
            coordinator.log.warn(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Name;
    use crate::keyholder::keys;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn each_stage_is_told_once_and_a_renewed_one_begins_anew() {
        let text = keys::make("mx.example", &mut Vec::new()).unwrap();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
        let ends = Certificate::parse(vec![der.clone()]).unwrap().not_after();
        let at = |left: i64| UNIX_EPOCH + Duration::from_secs((ends - left * DAY_SECONDS - 60) as u64);
        let identity = Identity { name: Name::Pki("mx".into()), listed: None, chain: vec![der], key: 1 };
        let expiry = Expiry::default();
        expiry.follow(std::slice::from_ref(&identity), at(40));
        assert_eq!(expiry.days(at(40)), [CertificateDays { pki: "mx".into(), days: 40 }]);
        for (left, told) in [
            (30, None),
            (21, None),
            (20, Some("pki mx expires in 20 days: renew it")),
            (19, None),
            (6, Some("expires in 6 days")),
            (5, None),
            (0, Some("expires in 0 days")),
            (-1, Some("has expired")),
            (-2, None),
        ] {
            let news = expiry.news(at(left));
            assert_eq!(news.len(), usize::from(told.is_some()), "{left}: {news:?}");
            assert!(news.iter().all(|line| line.contains(told.unwrap_or_default())), "{left}: {news:?}");
        }
        // The supervisor tells at a reload; what it has told is not told again.
        expiry.follow(&[identity], at(6));
        assert!(expiry.news(at(6)).is_empty() && expiry.news(at(0)).len() == 1);
    }
}
