//! Which sysctls routing over several uplinks needs.

use std::collections::BTreeMap;

use super::Observed;
use crate::core::net::Family;
use crate::core::sysctl::Sysctl;
use crate::core::uplink::Uplink;

/// Settings, each only if needed: what it was before we first wrote it decides.
pub(super) fn sysctls(uplinks: &[Uplink], observed: &Observed) -> BTreeMap<Sysctl, String> {
    let kernel = &observed.kernel;
    let value = |key: &Sysctl| {
        let text = kernel.originals.get(key).or(kernel.sysctls.get(key))?;
        text.trim().parse::<u32>().ok()
    };
    let mut wanted = BTreeMap::new();
    let everywhere = value(&Sysctl::rp_filter_of_all()).unwrap_or(0);
    for uplink in uplinks {
        let name = &uplink.dev.name;
        // A packet may come back by an uplink that the balanced default does not use just then; 2 checks only
        // that its sender can be reached at all. The kernel takes the higher of "all" and the interface's own.
        let rp_filter = Sysctl::RpFilter(name.clone());
        if value(&rp_filter).is_some_and(|own| own.max(everywhere) == 1) {
            wanted.insert(rp_filter, "2".to_owned());
        }
        for family in Family::BOTH {
            // It counts only if set before the carrier goes.
            wanted.insert(Sysctl::IgnoreLinkdown(family, name.clone()), "1".to_owned());
        }
    }
    for family in Family::BOTH {
        // By addresses alone, one busy server would be reached by one uplink only.
        let policy = Sysctl::HashPolicy(family);
        if value(&policy) == Some(0) {
            wanted.insert(policy, "1".to_owned());
        }
    }
    wanted
}
