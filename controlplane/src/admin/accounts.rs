//! Who may use the admin interface: the admin user by password, programs by token.
//!
//! A password is kept as an argon2id hash, made when the configuration is read where it does not
//! hold one; a token as its SHA-256, since it has more entropy than anybody tries. Comparing takes
//! the same time whatever is wrong.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use shared::config::model::{AdminAuth, ApiToken, Role};
use shared::secret::Secret;
use std::io;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// Memory of one hash at most, in KiB, where the configuration brings a hash of its own.
const HASH_KIB_MAX: u32 = 256 * 1024;
/// Passes over it at most.
const HASH_PASSES_MAX: u32 = 16;
/// Longest password that is hashed; a head is not much longer.
const PASSWORD_BYTES_MAX: usize = 8 * 1024;

/// Why nobody could be let in.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// `admin_password` begins as a hash does.
    #[error(
        "admin_password is no argon2id hash in PHC form that can be used here (at most {HASH_KIB_MAX} KiB and \
         {HASH_PASSES_MAX} passes)"
    )]
    NotAHash,
    /// No salt, or no memory to hash in.
    #[error("admin_password could not be hashed: {0}")]
    Hashing(io::Error),
}

/// Who is let in.
pub enum Accounts {
    /// Everybody: there are no accounts.
    Off,
    /// Nobody: the configuration that would say who is not there.
    Unknown,
    /// Whoever knows one of these.
    On(Credentials),
}

/// Of `auth_config`.
pub struct Credentials {
    /// `None`: tokens are all there is.
    user: Option<User>,
    tokens: Vec<ApiToken>,
}

struct User {
    name: String,
    /// In PHC form.
    password: String,
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// For the audit log and as a revision's author.
    pub(super) name: String,
    pub(super) role: Role,
}

impl Caller {
    /// Whoever looks at what needs no credentials.
    pub(super) fn nobody() -> Self {
        Self { name: "nobody".to_owned(), role: Role::Read }
    }

    /// Whoever is let in because there are no accounts.
    pub(super) fn anybody() -> Self {
        Self { name: "anybody".to_owned(), role: Role::Write }
    }
}

/// What a request brings along.
pub(super) enum Brought {
    Nothing,
    /// Some, that cannot be read, or several.
    Unreadable,
    Password {
        username: String,
        password: Secret,
    },
    Token(Secret),
}

impl Accounts {
    /// Hashes the password: takes tens of milliseconds of a CPU, and 19 MiB.
    pub fn of(auth: &AdminAuth) -> Result<Self, AccountsError> {
        if !auth.is_enabled {
            return Ok(Self::Off);
        }
        let user = match (&auth.username, &auth.password) {
            (Some(name), Some(password)) => Some(User::new(name, password)?),
            _ => None,
        };
        Ok(Self::On(Credentials { user, tokens: auth.tokens.clone() }))
    }
}

impl User {
    fn new(name: &str, password: &Secret) -> Result<Self, AccountsError> {
        let password = if password.expose().starts_with("$argon2") {
            checked_hash(password.expose())?
        } else {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).map_err(|error| AccountsError::Hashing(io::Error::other(error)))?;
            let hash: PasswordHash = Argon2::default()
                .hash_password_with_salt(password.expose().as_bytes(), &salt)
                .map_err(|error| AccountsError::Hashing(io::Error::other(error.to_string())))?;
            hash.to_string()
        };
        Ok(Self { name: name.to_owned(), password })
    }
}

fn checked_hash(text: &str) -> Result<String, AccountsError> {
    let hash = PasswordHash::new(text).map_err(|_| AccountsError::NotAHash)?;
    let params = argon2::Params::try_from(&hash).map_err(|_| AccountsError::NotAHash)?;
    let fits = hash.algorithm.as_str() == "argon2id"
        && hash.salt.is_some()
        && hash.hash.is_some()
        && params.m_cost() <= HASH_KIB_MAX
        && params.t_cost() <= HASH_PASSES_MAX
        && params.p_cost() <= 16;
    if fits { Ok(text.to_owned()) } else { Err(AccountsError::NotAHash) }
}

impl Credentials {
    /// Who has this token. Cheap.
    pub(super) fn by_token(&self, token: &Secret) -> Option<Caller> {
        let sum = digest(&SHA256, token.expose().as_bytes());
        let mut found = None;
        // All of them, so that the time says nothing about which one fits.
        for known in &self.tokens {
            if known.digest[..].ct_eq(sum.as_ref()).into() {
                found = Some(Caller { name: format!("token:{}", known.name), role: known.role });
            }
        }
        found
    }

    /// Whether this is the admin user. As expensive as [`Accounts::of`], also for a wrong name: to be
    /// called on the blocking pool.
    pub(super) fn by_password(&self, username: &str, password: &Secret) -> Option<Caller> {
        let user = self.user.as_ref()?;
        let is_name: Choice = user.name.as_bytes().ct_eq(username.as_bytes());
        let fits = password.len() <= PASSWORD_BYTES_MAX
            && Argon2::default().verify_password(password.expose().as_bytes(), user.password.as_str()).is_ok();
        let is_admin = is_name & Choice::from(u8::from(fits));
        bool::from(is_admin).then(|| Caller { name: user.name.clone(), role: Role::Write })
    }
}

impl Brought {
    /// What the values of the fields named Authorization hold.
    pub(super) fn read<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Self {
        let Some(value) = values.next() else { return Self::Nothing };
        if values.next().is_some() {
            return Self::Unreadable;
        }
        Self::of(value).unwrap_or(Self::Unreadable)
    }

    fn of(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = str::from_utf8(value).ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return (!rest.is_empty()).then(|| Self::Token(Secret::new(rest)));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
        let (username, password) = str::from_utf8(&pair).ok()?.split_once(':')?;
        Some(Self::Password { username: username.to_owned(), password: Secret::new(password) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Sources, load};

    fn credentials(auth: &str) -> Result<Accounts, AccountsError> {
        let text = format!(r#"{{"governance": {{"auth_config": {auth}}}}}"#);
        Accounts::of(&load(&text, &Sources::none()).expect("a configuration").config.governance.auth)
    }

    #[test]
    fn tokens_are_enough_and_let_nobody_in_by_a_password() {
        let auth =
            r#"{"is_enabled": true, "api_tokens": [{"name": "ci", "role": "write", "value": "0123456789abcdef-w"}]}"#;
        let Ok(Accounts::On(known)) = credentials(auth) else { panic!("accounts") };
        assert!(known.by_token(&Secret::new("0123456789abcdef-w")).is_some());
        assert!(known.by_password("", &Secret::new("")).is_none());
    }

    #[test]
    fn the_admin_user_is_known_by_name_and_password_and_a_program_by_its_token() {
        let auth = r#"{"is_enabled": true, "admin_username": "ann", "admin_password": "correct horse", "api_tokens": [
            {"name": "ci", "role": "write", "value": "0123456789abcdef-w"},
            {"name": "graphs", "role": "read", "value": "0123456789abcdef-r"}]}"#;
        let Ok(Accounts::On(known)) = credentials(auth) else { panic!("accounts") };
        let name = |caller: Option<Caller>| caller.map(|caller| (caller.name, caller.role));
        let password = |username: &str, text: &str| name(known.by_password(username, &Secret::new(text)));
        assert_eq!(password("ann", "correct horse"), Some(("ann".to_owned(), Role::Write)));
        assert_eq!(password("ann", "correct hors"), None);
        assert_eq!(password("bob", "correct horse"), None);
        let token = |text: &str| name(known.by_token(&Secret::new(text)));
        assert_eq!(token("0123456789abcdef-w"), Some(("token:ci".to_owned(), Role::Write)));
        assert_eq!(token("0123456789abcdef-r"), Some(("token:graphs".to_owned(), Role::Read)));
        assert_eq!(token("correct horse"), None);
        // The configuration may bring the hash.
        let auth = format!(
            r#"{{"is_enabled": true, "admin_username": "ann", "admin_password": "{}"}}"#,
            known.user.as_ref().unwrap().password.replace('"', "")
        );
        let Ok(Accounts::On(hashed)) = credentials(&auth) else { panic!("accounts") };
        assert!(hashed.by_password("ann", &Secret::new("correct horse")).is_some());
        assert!(hashed.by_password("ann", &Secret::new(&known.user.as_ref().unwrap().password)).is_none());
    }

    #[test]
    fn a_hash_that_cannot_be_used_is_refused() {
        for hash in [
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8",
            "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8/Pz8",
            "$argon2",
        ] {
            let auth = format!(r#"{{"is_enabled": true, "admin_username": "a", "admin_password": "{hash}"}}"#);
            assert!(matches!(credentials(&auth), Err(AccountsError::NotAHash)), "{hash}");
        }
    }

    #[test]
    fn credentials_are_read_as_they_are_sent() {
        let read = |values: &[&str]| match Brought::read(values.iter().map(|value| value.as_bytes())) {
            Brought::Nothing => "nothing".to_owned(),
            Brought::Unreadable => "unreadable".to_owned(),
            Brought::Password { username, password } => format!("{username}/{}", password.expose()),
            Brought::Token(token) => token.expose().to_owned(),
        };
        assert_eq!(read(&[]), "nothing");
        assert_eq!(read(&["Basic YW5uOmE6Yg=="]), "ann/a:b");
        assert_eq!(read(&["bearer t0k"]), "t0k");
        for odd in ["", "Basic", "Basic !", "Basic YW5u", "Bearer ", "Digest x", "Basic /w=="] {
            assert_eq!(read(&[odd]), "unreadable", "{odd}");
        }
        assert_eq!(read(&["Bearer a", "Bearer b"]), "unreadable");
    }
}
