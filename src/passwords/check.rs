//! Whether a password fits a hash, whatever scheme that is of.

use super::{crypt, directory, pbkdf2, scram};

/// What is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It fits.
    Right,
    /// It does not.
    Wrong,
    /// This is no hash that anything can fit, and why.
    Unusable(&'static str),
}

impl Checked {
    pub(super) fn of(fits: bool) -> Self {
        if fits { Self::Right } else { Self::Wrong }
    }
}

/// Checks. Takes as long as the hash wants, within the bounds of `limits.rs`.
pub fn check(password: &str, hash: &str) -> Checked {
    if let Some((scheme, rest)) = hash.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return match scheme.to_ascii_uppercase().as_str() {
            // An IMAP server's names for hashes of crypt(3) are many, and say no more than the hash itself.
            _ if rest.starts_with('$') && !scheme.eq_ignore_ascii_case("PBKDF2") => check_plain(password, rest),
            "PLAIN" | "CLEAR" | "CLEARTEXT" => Checked::of(super::is_same(password.as_bytes(), rest.as_bytes())),
            scheme if scheme.starts_with("PBKDF2") => pbkdf2::check_directory(password, scheme, rest),
            scheme => directory::check(password, scheme, rest),
        };
    }
    check_plain(password, hash)
}

fn check_plain(password: &str, hash: &str) -> Checked {
    match hash {
        _ if hash.starts_with("SCRAM-") => {
            scram::Keys::parse(hash).map_or(Checked::Unusable(NO_KEYS), |keys| Checked::of(keys.fit(password)))
        }
        _ if hash.starts_with("$pbkdf2") => pbkdf2::check(password, hash),
        _ if hash.starts_with('$') => crypt::check(password, hash),
        _ => Checked::Unusable("not a hash"),
    }
}

const NO_KEYS: &str = "not keys of SCRAM-SHA-256";

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by others, all of `pässword`: libxcrypt's crypt(3), OpenSSL, and Python's digests in the forms of OpenLDAP,
    /// passlib and PostgreSQL.
    const MADE_BY_OTHERS: &[&str] = &[
        "$y$j9T$abcdefghij0123456789./$iqivdHgc3yJCy4SWdu3DJkgZnA5K12ewyG3rQNsgD97",
        "$6$rounds=1500$saltstring$jQwnYXE8VRe4jozD3/ZDt6Z4AWCDAXNXTegPgWEIUsXXxNXEhGewI7DF5p8OWK7WFMAq0ZulKtirXdAw3HpBt.",
        "$5$saltstring$cRBhKSfYzTy7ht1J5qVPFV0KZImJ0U5L5Ezw0UdIOW4",
        "$2b$05$abcdefghijklmnopqrstuucZGbUxuMlEqps0qcu2pjhO7vaatQZIC",
        "$2y$05$abcdefghijklmnopqrstuucZGbUxuMlEqps0qcu2pjhO7vaatQZIC",
        "$6$x.y/z$tMwWAsd4a2W4Ip5ryTClk7jQ8Kq8rP6bgfScXAFRKM85Xn71GBdCkBhywdiKzn/wAig30bxlNBdkYn9mbKryX1",
        "$5$0123456789abcdef$zs1dpkJu8VhoQP34d9Q4lCRoI/6hz0kOEzx1r.qjdg9",
        "{SSHA}kDJH43m4r76VNznhYS+DfYAWbO9zYWx0",
        "{SHA}I7dElEdfX4dJgLdnbVEeI9iG2mQ=",
        "{ssha256}/AJOdwZqq+lNlMip8fPwf7IsnZG4+46O05qOwdf0kqlzYWx0c2FsdA==",
        "{SHA512}KF3icbSeAO9oGc8Ku/AxXpfCXLo2FhZ8dw78Umxki03hH0sA3HH67TOjEse6g2kNPtFKqq32tiKqSJlv8H7IpA==",
        "{SSHA512}gwKQTaZQyX1ouf87kyFc/WY/guXg7rm2uH+cK+8tyGaeizK6KKHxXf5Y4VxWKqncNNj9v5Rm4OzDgubeG3z1DnNhbHRzYWx0",
        "$pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$rybsuBlIHCOEKCPpDvTVloYHkPEiKOiJqqYGLCHAfF0",
        "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$rybsuBlIHCOEKCPpDvTVloYHkPEiKOiJqqYGLCHAfF0",
        "{PBKDF2-SHA512}1000$MDEyMzQ1Njc4OWFiY2RlZg$20MTVzg/n3H4pkjP7rPbs9uXGvJYlRG4j32EBHiNeegrbijWGjc63LMIJzA0jtIUGL4tJ0FCjR9uzA3gQvH7WA",
        "{PBKDF2}1000$MDEyMzQ1Njc4OWFiY2RlZg$Xuk/mKPBRhbLsojtsFDMxeS28vA",
        "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$ZOD7DI+4MqGGsN6ZQD/rOKDUUsnhbVmmHppZDbN6NaE=:/1HDlTTdmOBBsZpsWjLoaM1urX9K1q6B49ryQfrh6Y8=",
        "{CRYPT}$6$rounds=1500$saltstring$jQwnYXE8VRe4jozD3/ZDt6Z4AWCDAXNXTegPgWEIUsXXxNXEhGewI7DF5p8OWK7WFMAq0ZulKtirXdAw3HpBt.",
        "{SHA512-CRYPT}$6$rounds=1500$saltstring$jQwnYXE8VRe4jozD3/ZDt6Z4AWCDAXNXTegPgWEIUsXXxNXEhGewI7DF5p8OWK7WFMAq0ZulKtirXdAw3HpBt.",
        "{PLAIN}pässword",
    ];

    #[test]
    fn s40_hashes_of_others_are_understood() {
        for hash in MADE_BY_OTHERS {
            assert_eq!(check("pässword", hash), Checked::Right, "{hash}");
            assert_eq!(check("password", hash), Checked::Wrong, "{hash}");
            assert_eq!(check("", hash), Checked::Wrong, "{hash}");
        }
    }

    /// Of the algorithm's own test.
    #[test]
    fn argon2_is_understood() {
        let hash = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert_eq!((check("password", hash), check("Password", hash)), (Checked::Right, Checked::Wrong));
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        for hash in [
            "",
            "x",
            "*",
            "!",
            "pässword",
            "$",
            "$$",
            "$1$salt$UsdFqFVB.FsuinRDK5eE..",
            "$9$x",
            "{CRYPT}ab01FAX.bQRSU",
            "{SHA}",
            "{SSHA}AAAA",
            "{NONE}x",
            "{MD5}AAAA",
            "$6$salt$",
            "$6$salt",
            "$y$j9T$salt$",
            "$y$j9T$",
            "$y$",
            "$2b$05$",
            "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$",
            "$argon2id$v=19$m=8,t=1,p=1$$AAAA",
            "$argon2id$",
            "$pbkdf2-sha256$1$$",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-1$4096:AAAA$AAAA:AAAA",
        ] {
            assert!(matches!(check("pässword", hash), Checked::Unusable(_)), "{hash}");
        }
    }

    /// An entry of a table must not keep a processor busy for a day.
    #[test]
    fn costs_are_bounded() {
        for hash in [
            "$2b$31$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$6$rounds=999999999$salt$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$argon2id$v=19$m=4194304,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=65536,t=10000,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$y$jKT$salt12345$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$pbkdf2-sha256$999999999$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "SCRAM-SHA-256$999999999:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            let began = std::time::Instant::now();
            assert!(matches!(check("x", hash), Checked::Unusable(_)), "{hash}");
            assert!(began.elapsed() < std::time::Duration::from_secs(1), "{hash}");
        }
    }
}
