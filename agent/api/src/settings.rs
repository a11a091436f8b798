//! Settings of weft's own that hold for the whole mesh: key `weft` of the ConfigMap `weft` or `istio` in the root namespace,
//! beside MeshConfig.

use serde::{Deserialize, Serialize};

use crate::finding::{Severity, code};
use crate::kubernetes::ConfigMap;
use crate::validate::Problem;
use crate::yaml::{self, Fault, Segment};

/// The key of the ConfigMap.
pub const KEY: &str = "weft";

/// The settings. An absent field leaves the default in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Whose VirtualServices may be for the host of a Service.
    pub host_ownership: HostOwnership,
}

/// `hostOwnership`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostOwnership {
    /// Anybody's, as in Istio.
    #[default]
    Any,
    /// Those of the Service's namespace, and of the root namespace.
    Namespace,
}

/// The settings are there and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Reads the settings of a ConfigMap; `None` where it has none.
///
/// # Errors
/// [`Unreadable`]: validation says why.
pub fn read(map: &ConfigMap) -> Result<Option<Settings>, Unreadable> {
    match check(map) {
        None => Ok(None),
        Some((settings, _)) => settings.map(Some).ok_or(Unreadable),
    }
}

/// As [`read`], with what is wrong.
pub(crate) fn check(map: &ConfigMap) -> Option<(Option<Settings>, Vec<Problem>)> {
    if !matches!(map.metadata.name.as_str(), "istio" | "weft") {
        return None;
    }
    let text = map.data.get(KEY)?;
    match parse(text) {
        Ok(settings) => Some((Some(settings), Vec::new())),
        Err((path, message)) => {
            let at = ["data", KEY].map(|key| Segment::Key(key.into()));
            let path = at.into_iter().chain(path).collect();
            let problem = Problem { severity: Severity::Error, code: code::INVALID_VALUE, path, message };
            Some((None, vec![problem]))
        }
    }
}

fn parse(text: &str) -> Result<Settings, (Vec<Segment>, String)> {
    let whole = |message: String| (Vec::new(), message);
    let pieces = yaml::split(text);
    let document = match &pieces[..] {
        [] => return Ok(Settings::default()),
        [piece] => yaml::parse(piece).map_err(|wrong| whole(format!("not valid YAML: {}", wrong.message)))?,
        _ => return Err(whole("several documents (keep one)".to_owned())),
    };
    let Some(root) = document.root else { return Ok(Settings::default()) };
    yaml::from_node(&root).map_err(|wrong| {
        let message = match wrong.fault {
            Fault::UnknownField => "unknown (weft's own settings are: hostOwnership)".to_owned(),
            Fault::UnknownVariant(found, known) => format!("{found:?} is none of {}", known.join(", ")),
            Fault::Type(expected) | Fault::Value(expected) => format!("expected {expected}"),
            Fault::Missing(field) => format!("`{field}` is missing"),
            Fault::Other(message) => message,
        };
        (wrong.path, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        "weft".clone_into(&mut map.metadata.name);
        map.data.insert(KEY.to_owned(), text.to_owned());
        map
    }

    #[test]
    fn settings_are_read_and_wrong_ones_told() {
        let owner = |text| read(&map(text)).unwrap().map(|settings| settings.host_ownership);
        assert_eq!(owner("hostOwnership: namespace"), Some(HostOwnership::Namespace));
        assert_eq!(owner("# nothing"), Some(HostOwnership::Any));
        for (text, path) in [
            ("hostOwnership: mine", "data.weft.hostOwnership"),
            ("hostOwner: namespace", "data.weft.hostOwner"),
            ("a: [", "data.weft"),
        ] {
            let (settings, problems) = check(&map(text)).unwrap();
            assert_eq!(settings, None, "{text}");
            assert_eq!(yaml::render(&problems[0].path), path);
        }
        assert_eq!(read(&ConfigMap::default()), Ok(None));
        assert_eq!(read(&map("a: [")), Err(Unreadable));
    }
}
