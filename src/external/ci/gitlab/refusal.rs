//! What a refusal means, and what to do about it.

use reqwest::StatusCode;

use super::http::Asked;
use crate::external::{Class, Error};
use crate::settings::ci::TokenKind;

/// Longest part of an answer that is shown.
const SHOWN: usize = 200;

/// The token that is needed: what changes something needs more.
fn make_token(asked: Asked<'_>) -> String {
    format!("make a token with scope `{}` and set KMT_GITLAB_TOKEN", scope(asked))
}

fn scope(asked: Asked<'_>) -> &'static str {
    if matches!(asked.operation, "retry" | "cancel") { "api" } else { "read_api" }
}

fn job_token(asked: Asked<'_>) -> String {
    format!(
        "a job token cannot do this: it needs a project or personal access token with scope `{}` in KMT_GITLAB_TOKEN (a \
         masked CI/CD variable), or the project's job token permissions must allow it",
        scope(asked)
    )
}

/// The server's own words in a body, with `: ` before them; nothing where there are none.
pub(super) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => {
            let told = ["error_description", "message", "error"].iter().find_map(|key| value.get(*key));
            told.map(|told| told.as_str().map_or_else(|| told.to_string(), str::to_owned)).unwrap_or_default()
        }
        Err(_) => title(&text).unwrap_or_default().to_owned(),
    };
    let said: String = said.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if said.is_empty() { said } else { format!(": {said}") }
}

fn title(text: &str) -> Option<&str> {
    Some(text.split_once("<title>")?.1.split_once("</title>")?.0.trim())
}

/// A refusal by its status. `own` is the token that was shown, where the server itself was asked.
pub(super) fn of(asked: Asked<'_>, status: StatusCode, said: &str, own: Option<Option<TokenKind>>) -> Error {
    let error = |class, detail: String| Error::new("gitlab", asked.operation, asked.subject, class, detail);
    let token = own.flatten();
    match status {
        StatusCode::UNAUTHORIZED => {
            let error = error(Class::Denied, format!("the token is not valid, or has expired{said}"));
            match token {
                Some(TokenKind::Job) => error.hint(job_token(asked)),
                Some(TokenKind::Access) => error.hint(make_token(asked)),
                None => {
                    Error { detail: format!("no token was given{said}"), ..error }.hint(make_token(asked))
                }
            }
        }
        StatusCode::FORBIDDEN => {
            let error = error(Class::Denied, format!("not allowed{said}"));
            match token {
                Some(TokenKind::Job) => error.hint(job_token(asked)),
                Some(TokenKind::Access) => error.hint(format!(
                    "the token's owner must be a member who may see pipelines and artifacts; {}",
                    make_token(asked)
                )),
                None => error.hint(make_token(asked)),
            }
        }
        StatusCode::NOT_FOUND => {
            let error = error(Class::NotFound, format!("there is none{said}"));
            match token {
                Some(TokenKind::Job) => error.hint(job_token(asked)),
                _ => error.hint(
                    "the project (KMT_GITLAB_PROJECT, or `project` in `[gitlab]`) and the number must be right, and \
                     the token must be allowed to see them: GitLab answers 404 for what is hidden",
                ),
            }
        }
        status => error(Class::Rejected, format!("it answered {status}{said}")),
    }
}

/// The server wants somebody to sign in.
pub(super) fn sign_in(asked: Asked<'_>, token: Option<TokenKind>) -> Error {
    of(asked, StatusCode::UNAUTHORIZED, ": it asks to sign in", Some(token))
}

/// An answer that is no JSON, such as the page of a proxy.
pub(super) fn no_json(asked: Asked<'_>, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let what = title(&text).map_or_else(|| "it is no JSON".to_owned(), |title| format!("a page `{title}`"));
    let what: String = what.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    Error::new("gitlab", asked.operation, asked.subject, Class::Unintelligible, what)
        .hint("KMT_GITLAB_URL (or `url` in `[gitlab]`) must be GitLab's own address, without a proxy that asks to sign in")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'static> = Asked { operation: "read", subject: "pipelines/7" };

    #[test]
    fn the_servers_words_are_shown_and_tame() {
        assert_eq!(words(br#"{"message":"404 Project Not Found"}"#), ": 404 Project Not Found");
        assert_eq!(
            words(br#"{"error":"insufficient_scope","error_description":"needs \u001b[1mapi"}"#),
            ": needs [1mapi"
        );
        assert_eq!(words(b"<html><title> 502 </title>"), ": 502");
        assert_eq!(words(b"\xff"), "");
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let hint = |status, token| of(ASKED, status, "", Some(token)).hint.unwrap();
        assert!(hint(StatusCode::UNAUTHORIZED, None).contains("KMT_GITLAB_TOKEN"));
        assert!(hint(StatusCode::FORBIDDEN, Some(TokenKind::Job)).contains("job token permissions"));
        assert!(hint(StatusCode::NOT_FOUND, Some(TokenKind::Access)).contains("KMT_GITLAB_PROJECT"));
        assert_eq!(of(ASKED, StatusCode::GONE, "", None).class, Class::Rejected);
    }
}
