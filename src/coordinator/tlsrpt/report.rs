//! The form of a report (RFC 8460 §4), and where it goes (§3).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{Counts, DAY};

/// A report to one domain about one day.
#[derive(Clone, Copy)]
pub struct Report<'a> {
    /// Who reports.
    pub hostname: &'a str,
    /// Whom.
    pub domain: &'a str,
    /// Since 1970.
    pub day: u64,
    /// What happened.
    pub policies: &'a [Counts],
}

impl Report<'_> {
    /// The name that a file with it has (RFC 8460 §5.1).
    pub fn file_name(&self) -> String {
        let begin = self.day * DAY;
        // Both come from outside, and neither may name a place.
        let safe = |name: &str| name.replace(|each: char| !each.is_ascii_alphanumeric() && !"-.".contains(each), "_");
        let (from, to) = (safe(self.hostname), safe(self.domain));
        format!("{from}!{to}!{begin}!{}!001.json.gz", begin + DAY - 1)
    }

    /// What no other report has.
    pub fn id(&self) -> String {
        format!("{}.{}@{}", self.day, self.domain, self.hostname)
    }

    /// As JSON, packed with gzip.
    pub fn packed(&self) -> Vec<u8> {
        let text = serde_json::to_vec(&self.json()).expect("text and numbers");
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(&text).expect("a vector takes everything");
        packer.finish().expect("a vector takes everything")
    }

    fn json(&self) -> Value {
        let time = |seconds: u64| {
            let time = jiff::Timestamp::from_second(seconds as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        let policies = self.policies.iter().map(|counts| {
            let failures = counts.failures.iter().map(|failure| {
                let mut one = json!({
                    "result-type": failure.kind,
                    "receiving-mx-hostname": failure.host,
                    "failed-session-count": failure.count,
                });
                if let Some((theirs, ours)) = failure.addresses {
                    one["receiving-ip"] = json!(theirs);
                    one["sending-mta-ip"] = json!(ours);
                }
                one
            });
            json!({
                "policy": { "policy-type": counts.policy, "policy-domain": self.domain },
                "summary": {
                    "total-successful-session-count": counts.good,
                    "total-failure-session-count": counts.failed,
                },
                "failure-details": failures.collect::<Vec<_>>(),
            })
        });
        json!({
            "organization-name": self.hostname,
            "date-range": {
                "start-datetime": time(self.day * DAY),
                "end-datetime": time((self.day + 1) * DAY - 1),
            },
            "contact-info": format!("postmaster@{}", self.hostname),
            "report-id": self.id(),
            "policies": policies.collect::<Vec<_>>(),
        })
    }
}

/// Where a domain wants its reports, if exactly one of its TXT records says so.
pub fn wanted(texts: &[String]) -> Option<Vec<String>> {
    let mut records = texts.iter().filter(|text| text.starts_with("v=TLSRPTv1"));
    let (record, None) = (records.next()?, records.next()) else { return None };
    let mut fields = record.split(';').map(str::trim);
    if fields.next() != Some("v=TLSRPTv1") {
        return None;
    }
    let places = fields.find_map(|field| field.strip_prefix("rua="))?;
    let places: Vec<String> = places.split(',').map(|place| place.trim().to_owned()).collect();
    (!places.is_empty()).then_some(places)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::super::Failure;
    use super::*;

    #[test]
    fn where_reports_go_is_said_by_one_record() {
        let of = |texts: &[&str]| wanted(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let two = of(&["other", "v=TLSRPTv1; rua=mailto:a@b.example, https://b.example/x"]).unwrap();
        assert_eq!(two, ["mailto:a@b.example", "https://b.example/x"]);
        for wrong in [&["v=TLSRPTv1"][..], &["v=TLSRPTv10; rua=mailto:a@b"], &["v=TLSRPTv1;rua=a", "v=TLSRPTv1;rua=b"]]
        {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_report_says_what_happened() {
        let addresses = Some(([192, 0, 2, 1].into(), [192, 0, 2, 9].into()));
        let failure = Failure { kind: "certificate-expired".into(), host: "mx.d.example".into(), addresses, count: 3 };
        let policies = [Counts { policy: "sts".into(), good: 5, failed: 3, failures: vec![failure] }];
        let report = Report { hostname: "us.example", domain: "d.example", day: 20_000, policies: &policies };
        assert_eq!(report.file_name(), "us.example!d.example!1728000000!1728086399!001.json.gz");
        let odd = Report { domain: "../d\n/e!", ..report };
        assert_eq!(odd.file_name(), "us.example!.._d__e_!1728000000!1728086399!001.json.gz");
        let mut text = String::new();
        GzDecoder::new(&report.packed()[..]).read_to_string(&mut text).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["date-range"]["start-datetime"], "2024-10-04T00:00:00Z");
        assert_eq!(value["date-range"]["end-datetime"], "2024-10-04T23:59:59Z");
        let policy = &value["policies"][0];
        assert_eq!(policy["summary"]["total-successful-session-count"], 5);
        assert_eq!(policy["failure-details"][0]["failed-session-count"], 3);
        assert_eq!(policy["failure-details"][0]["receiving-ip"], "192.0.2.1");
        assert_eq!(policy["policy"]["policy-domain"], "d.example");
    }
}
