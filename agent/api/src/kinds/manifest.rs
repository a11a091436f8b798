//! What the manifests of `weft install` say of kinds: rules of RBAC, and groups that the webhook is asked about.
//!
//! Each stands in a block between two comments, `# begin NAME …` and `# end NAME`, which `cargo xtask generate` fills; what is
//! around it is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Entry, Kind, State, Watch};

/// Follows a block's name where it begins.
const MADE: &str = "(made by `cargo xtask generate` from the registry of kinds)";

/// What fills a block.
type Fill = fn() -> String;

/// The blocks, by name.
const BLOCKS: [(&str, Fill); 5] = [
    ("what agents watch", || {
        rules(Kind::ALL.into_iter().filter(|kind| is_watched(*kind)), "", "[get, list, watch]")
    }),
    ("what users write", || {
        rules(Kind::ALL.into_iter().filter(|kind| kind.is_users()), "", "[get, list, watch]")
    }),
    ("statuses of what users write", || {
        rules(Kind::ALL.into_iter().filter(|kind| kind.is_users()), "/status", "[patch]")
    }),
    ("groups that are checked", || groups(is_checked)),
    ("groups without effect", || groups(|group| super::is_in_vain(group) && !is_checked(group))),
];

/// Agents watch its objects wherever they are, not some by their names.
fn is_watched(kind: Kind) -> bool {
    matches!(kind.entry().state, State::Read(Watch::All | Watch::Where(_)))
}

/// Users write kinds of this group that are read.
fn is_checked(group: &str) -> bool {
    Kind::ALL.into_iter().any(|kind| kind.is_users() && kind.entry().group == group)
}

/// Rules of RBAC, one for each group.
fn rules(kinds: impl Iterator<Item = Kind>, subresource: &str, verbs: &str) -> String {
    let mut by_group: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Entry { group, plural, .. } in kinds.map(Kind::entry) {
        by_group.entry(group).or_default().push(format!("{plural}{subresource}"));
    }
    let mut text = String::new();
    for (group, mut resources) in by_group {
        resources.sort_unstable();
        let (group, resources) = (if group.is_empty() { "\"\"" } else { group }, resources.join(", "));
        // Writing to a String does not fail.
        _ = writeln!(text, "- apiGroups: [{group}]\n  resources: [{resources}]\n  verbs: {verbs}");
    }
    text
}

/// The beginning of a webhook's rule.
fn groups(wanted: fn(&str) -> bool) -> String {
    let mut all: Vec<_> = super::all().map(|entry| entry.group).filter(|group| wanted(group)).collect();
    all.sort_unstable();
    all.dedup();
    format!("- apiGroups: [{}]\n", all.join(", "))
}

/// A manifest with its blocks as they should be.
///
/// # Errors
/// A block has no end, or a name that there is none of.
pub fn renewed(manifest: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut lines = manifest.lines();
    while let Some(line) = lines.next() {
        let Some((indent, rest)) = line.split_once("# begin ") else {
            text.extend([line, "\n"]);
            continue;
        };
        let name = rest.split(" (").next().unwrap_or(rest);
        let block = BLOCKS.iter().find(|(known, _)| *known == name);
        let (_, content) = block.ok_or_else(|| format!("there is no block `{name}`"))?;
        let end = format!("# end {name}");
        lines.find(|line| line.trim() == end).ok_or_else(|| format!("`{name}` has no `{end}`"))?;
        let content = content();
        for line in
            [format!("# begin {name} {MADE}").as_str()].into_iter().chain(content.lines()).chain([&*end])
        {
            text.extend([indent, line, "\n"]);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::renewed;

    #[test]
    fn a_block_is_filled_and_what_is_around_it_stays() {
        let before =
            "rules:\n  # begin groups that are checked\n  old\n  # end groups that are checked\n  more: 1\n";
        let after = renewed(before).unwrap();
        let lines: Vec<_> = after.lines().collect();
        assert_eq!(
            (lines[0], lines[2]),
            ("rules:", "  - apiGroups: [networking.istio.io, security.istio.io]")
        );
        assert_eq!((lines[3], lines[4]), ("  # end groups that are checked", "  more: 1"));
        assert_eq!(renewed(&after).as_ref(), Ok(&after), "it is as it should be");
        assert!(renewed("# begin nonsense\n# end nonsense\n").is_err());
        assert!(renewed("# begin what users write\n").is_err());
    }
}
