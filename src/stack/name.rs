//! The default name of a stack: the git branch, or what stands for it.

use std::path::Path;

use crate::external::process::Child;

/// The stack of the branch that is checked out at `repository`: `/` as `-`; detached: `detached-<sha8>`; in
/// CI: slug and job; without git: `default`.
pub async fn default_name(repository: &Path) -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let (Some(slug), Some(job)) = (variable("CI_COMMIT_REF_SLUG"), variable("CI_JOB_ID")) {
        return clean(&format!("{slug}-{job}"));
    }
    let git = |args: &[&str]| Child::new("git").arg("-C").arg(repository).args(args).success();
    if let Ok(output) = git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await {
        return clean(output.text().trim());
    }
    match git(&["rev-parse", "--short=8", "HEAD"]).await {
        Ok(output) => format!("detached-{}", output.text().trim()),
        Err(_) => "default".to_owned(),
    }
}

/// A branch name as a stack name: what a stack name cannot have becomes `-`.
fn clean(branch: &str) -> String {
    let name: String = branch
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@') { c } else { '-' })
        .take(80)
        .collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "default".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_become_names() {
        assert_eq!(clean("me/feature x"), "me-feature-x");
        assert_eq!(clean("../.."), "default");
        assert_eq!(clean("-x"), "x");
    }
}
