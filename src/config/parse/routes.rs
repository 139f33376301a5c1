//! The routes of an uplink that stand in files: what is wrong with one is told, and the rest counts.

use std::path::Path;

use super::Document;
use super::policy::lines;
use crate::config::keys::Refusal;
use crate::config::problem::Source;
use crate::config::routes::{Lead, ROUTE, route};
use crate::core::extra::MOST_ROUTES;
use crate::core::text::counted;

/// So many lines of a file are told of one by one.
const TOLD: usize = 5;

impl Document<'_> {
    /// The routes in the place of the files that they are listed in.
    pub(super) fn routes(&mut self, leads: Vec<Lead>) -> Vec<Lead> {
        let mut routes = Vec::new();
        for lead in leads {
            match lead {
                Lead::File(path) => routes.extend(self.routes_of(&path)),
                lead => routes.push(lead),
            }
        }
        if routes.len() > MOST_ROUTES {
            let more = routes.len() - MOST_ROUTES;
            self.notes.push(format!(
                "{}: more than {MOST_ROUTES} routes for one uplink; {more} left out",
                self.source.path.display()
            ));
            routes.truncate(MOST_ROUTES);
        }
        routes
    }

    fn routes_of(&mut self, path: &Path) -> Vec<Lead> {
        let shown = path.display();
        let text = match self.outside.list(path) {
            Ok(text) => text,
            Err(why) => {
                self.notes.push(format!("{shown}: cannot be read: {why}; none of its routes is there"));
                return Vec::new();
            }
        };
        let (routes, bad) = lines(&text, route);
        if !bad.is_empty() {
            let source = Source::new(path, &text);
            for (span, word) in bad.iter().take(TOLD) {
                let refusal = Refusal::value("route", word, ROUTE);
                self.notes.push(format!("{shown}:{}: {refusal}; left out", source.line(span.start)));
            }
            if let more @ 1.. = bad.len().saturating_sub(TOLD) {
                self.notes.push(format!("{shown}: {} left out besides", counted(more, "line")));
            }
        }
        routes.into_iter().map(Lead::Route).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::resolve;
    use crate::config::policy::Outside;

    struct Files(&'static str);

    impl Outside for Files {
        fn list(&self, path: &Path) -> Result<String, String> {
            let text = self.0.to_owned();
            if path == Path::new("/isp") { Ok(text) } else { Err("no such file".into()) }
        }
        fn user(&self, _: &str) -> Option<u32> {
            None
        }
        fn group(&self, _: &str) -> Option<u32> {
            None
        }
    }

    fn read(value: &str, file: &'static str) -> (Vec<Lead>, Vec<String>) {
        let text = format!("[[uplink]]\nmatch.interface = 'eth0'\nroutes = {value}\n");
        let source = Source::new(Path::new("x.toml"), &text);
        let config =
            resolve(&[source], Vec::new(), &Files(file)).unwrap_or_else(|problems| panic!("{problems}"));
        (config.uplinks[0].settings.routes.clone().unwrap(), config.notes)
    }

    #[test]
    fn files_stand_for_their_lines_and_bad_ones_are_left_out() {
        let (routes, notes) = read(
            "['192.0.2.0/24', '/isp', '/gone']",
            "# The provider's own.\n198.51.100.0/24 # and more\n\nrubbish\n10.0.0.0/8 via 192.0.2.9\r\n0.0.0.0/0\n",
        );
        let expected = ["192.0.2.0/24", "198.51.100.0/24", "10.0.0.0/8 via 192.0.2.9"];
        assert_eq!(routes, expected.map(|text| Lead::Route(route(text).unwrap())));
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes[0].starts_with("/isp:4: route: rubbish is not allowed; PREFIX or "), "{}", notes[0]);
        assert!(notes[1].starts_with("/isp:6: route: 0.0.0.0/0 is not allowed; "), "{}", notes[1]);
        assert_eq!(notes[2], "/gone: cannot be read: no such file; none of its routes is there");
    }

    #[test]
    fn rubbish_is_counted_and_lists_have_an_end() {
        let (routes, notes) = read("'/isp'", "x\nx\nx\nx\nx\nx\nx\n");
        assert_eq!((routes.len(), notes.len()), (0, 6));
        assert_eq!(notes[5], "/isp: 2 lines left out besides");
        let long: String = (0..MOST_ROUTES + 3).map(|n| format!("10.{}.{}.1\n", n / 256, n % 256)).collect();
        let (routes, notes) = read("'/isp'", long.leak());
        assert_eq!(routes.len(), MOST_ROUTES);
        assert_eq!(notes, ["x.toml: more than 4096 routes for one uplink; 3 left out"]);
    }
}
