//! `auth_config.api_tokens`: credentials of programs at the admin interface. What is kept of a token
//! is its SHA-256, which a file may hold in its place.

use ring::digest::{SHA256, digest};

use crate::config::model::{ApiToken, Role};
use crate::config::reader::{Fields, Reader};
use crate::config::references::Kind;

/// Each request is compared with all of them.
const TOKENS_MAX: usize = 64;

/// A token is not stretched as a password is, and has to be one that nobody guesses.
const TOKEN_BYTES_MIN: usize = 16;

const HASH_PREFIX: &str = "sha256:";

const ROLES: [(&str, Role); 2] = [("read", Role::Read), ("write", Role::Write)];

pub(super) fn read(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<ApiToken> {
    let tokens = fields.read(reader, "api_tokens", |reader, node| {
        Some(reader.list(node, TOKENS_MAX, |reader, node| reader.object(node, read_token).flatten()))
    });
    tokens.unwrap_or_default()
}

fn read_token(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ApiToken> {
    let name_node = fields.required(reader, "name", "a name of its own");
    let name = name_node.as_ref().and_then(|node| reader.name(node));
    if let (Some(node), Some(name)) = (&name_node, &name) {
        reader.declare(Kind::ApiToken, name, node);
    }
    let role = fields.required(reader, "role", "read or write");
    let role = role.and_then(|node| reader.choice(&node, &ROLES));
    let expected = "\"env.NAME\", \"file:PATH\", or \"sha256:\" and the token's SHA-256 in 64 hexadecimal digits";
    let node = fields.required(reader, "value", expected)?;
    let value = reader.secret_or_hash(&node, |text| text.starts_with(HASH_PREFIX))?;
    let token = value.secret.expose();
    let digest = match token.strip_prefix(HASH_PREFIX) {
        Some(digits) => hash_of(digits),
        None if token.len() >= TOKEN_BYTES_MIN => digest(&SHA256, token.as_bytes()).as_ref().try_into().ok(),
        None => {
            reader.fault(
                &node.place,
                "is too short for a token",
                "16 bytes or more, such as `openssl rand -hex 32` makes",
            );
            return None;
        }
    };
    if digest.is_none() {
        reader.fault(&node.place, "is no SHA-256", "\"sha256:\" and 64 hexadecimal digits");
    }
    Some(ApiToken { name: name?, role: role?, digest: digest? })
}

fn hash_of(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (to, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: Option<&u8>| char::from(*digit?).to_digit(16);
        *to = u8::try_from(value(pair.first())? * 16 + value(pair.get(1))?).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{loaded, refused};

    fn with(token: &str) -> String {
        format!(
            r#"{{"governance": {{"auth_config": {{"is_enabled": true, "admin_username": "a",
                "admin_password": "env.OPENAI_API_KEY", "api_tokens": [{token}]}}}}}}"#
        )
    }

    #[test]
    fn a_token_and_its_hash_are_the_same() {
        let token = r#"{"name": "ci", "role": "write", "value": "env.OPENAI_API_KEY"}"#;
        let tokens = loaded(&with(token)).config.governance.auth.tokens;
        let hash = digest(&SHA256, b"sk-from-environment");
        assert_eq!(tokens[0].digest, hash.as_ref());
        let digits = tokens[0].digest.map(|byte| format!("{byte:02X}")).concat();
        let hashed = loaded(&with(&format!(r#"{{"name": "ci", "role": "write", "value": "sha256:{digits}"}}"#)));
        assert_eq!(hashed.config.governance.auth.tokens, tokens);
        assert!(hashed.warnings.is_empty(), "{:?}", hashed.warnings);
    }

    #[test]
    fn what_is_no_token_is_refused_where_it_stands() {
        for (token, place) in [
            (r#"{"name": "a", "role": "write", "value": "short"}"#, "value"),
            (r#"{"name": "a", "role": "write", "value": "sha256:00"}"#, "value"),
            (r#"{"name": "a", "role": "admin", "value": "env.OPENAI_API_KEY"}"#, "role"),
            (r#"{"role": "read", "value": "env.OPENAI_API_KEY"}"#, "api_tokens[0]"),
        ] {
            let faults = refused(&with(token));
            assert!(faults.len() == 1 && faults[0].path.ends_with(place), "{token}: {faults:?}");
        }
    }
}
