//! Tables by their uses (grammar §7.1): each is read once for each service that asks, and its entries are checked by that
//! service. Who is not in memory is only asked whether it could answer.

mod backend;
mod build;
mod problem;
mod settings;

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use self::backend::Source;
use self::build::{Body, Builder};
use self::settings::BackendSettings;
use super::Reading;
use crate::canonical;
use crate::model::{Keyed, RelayHost, Table, TableId, TableOptions};
use crate::parse::BUILT_IN_TABLES;
use crate::parse::ast::{Arg, Ast, Said, Targ, TargKind};
use crate::parse::schema::Shape;
use crate::report::Report;
use crate::rules::Among;
use crate::source_text::Span;
use crate::tables::{
    AddressPattern, AddressSet, AliasTarget, Certificate, Credentials, DkimKey, DomainSet, HostName, Mapped,
    MemoryTable, Part, ServiceKind, SourceSet, UserName, UserRecord, WordSet,
};

/// All declared tables, and what was made of them.
pub(super) struct Tables {
    declared: Vec<Declared>,
    /// Where a name is in the list: there may be very many.
    index: HashMap<String, usize>,
    /// File tables that were read: their text's number; `None` if that failed.
    data: HashMap<usize, Option<u32>>,
    /// Backends' own configuration files; `None` if that failed.
    settings: HashMap<usize, Option<BackendSettings>>,
    /// What was made of entries; `None` if there was an error in them.
    built: HashMap<Wanted, Option<Part>>,
}

struct Declared {
    name: String,
    /// With the brackets, if it has some.
    name_span: Span,
    source: Source,
    options: TableOptions,
    used: bool,
    services: Vec<ServiceKind>,
    /// `None`: it is built in.
    said: Option<Said>,
}

/// Entries, as one service wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    place: Place,
    service: ServiceKind,
    shape: Shape,
    regex: bool,
}

/// Where entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Table(usize),
    Here(Span),
}

/// Who answers.
enum Got {
    Memory(Part),
    Remote(TableId),
}

impl Tables {
    /// The tables that are declared. Nothing is read yet.
    pub(super) fn new(ast: &Ast, reading: &mut Reading<'_>) -> Self {
        let mut tables = Self {
            declared: Vec::new(),
            index: HashMap::new(),
            data: HashMap::new(),
            settings: HashMap::new(),
            built: HashMap::new(),
        };
        for said in ast.of("table") {
            tables.declare(said, reading);
        }
        tables
    }

    fn declare(&mut self, said: &Said, reading: &mut Reading<'_>) {
        let Some(name) = said.word(0) else { return };
        let source = Source::of(said, reading);
        let default = TableOptions::default();
        let options = TableOptions {
            cache: said.options.duration("cache").unwrap_or(default.cache),
            negative: said.options.duration("negative").unwrap_or(default.negative),
            stale: said.options.duration("stale").unwrap_or(default.stale),
            timeout: said.options.duration("timeout").unwrap_or(default.timeout),
            pool: said.options.count("pool").unwrap_or(default.pool),
            manual: said.options.has("manual"),
        };
        if matches!(source, Source::Static(_) | Source::File { .. }) {
            for option in
                ["cache", "negative", "stale", "timeout", "pool"].iter().filter_map(|name| said.options.find(name))
            {
                let report = Report::new("W0810", option.word.span, format!("`{}` has no effect", option.word.value));
                reading.report(report.help("the table is in memory, and nobody is asked"));
            }
        }
        if let Some(first) = self.index.get(&*name.text).map(|at| self.declared[*at].name_span) {
            let report = Report::new("E0305", name.span, format!("table `{}` is already declared", name.text));
            let help = format!("at {}", reading.texts.at(first));
            return reading.report(report.also(first, "declared here").help(help));
        }
        self.index.insert(name.text.to_string(), self.declared.len());
        self.declared.push(Declared {
            name: name.text.to_string(),
            name_span: name.span,
            source,
            options,
            used: false,
            services: Vec::new(),
            said: Some(said.clone()),
        });
    }

    /// Looks at every use in every statement, also in those that broke off: what is wrong with tables is told here.
    pub(super) fn check_uses(&mut self, ast: &Ast, reading: &mut Reading<'_>) {
        for said in &ast.statements {
            for (_, arg) in said.arguments() {
                match arg {
                    Arg::Targ(targ) => drop(self.get(targ, false, reading)),
                    Arg::Regex(targ) => drop(self.get(targ, true, reading)),
                    _ => {}
                }
            }
        }
    }

    /// What a use asks for. `None`: there was an error, and it was told.
    fn get(&mut self, targ: &Targ, regex: bool, reading: &mut Reading<'_>) -> Option<Got> {
        let at = match &targ.what {
            TargKind::Table(name) => Some(self.find(name, targ, reading)?),
            _ => None,
        };
        if let Some(at) = at
            && let Source::Remote(backend) = &self.declared[at].source
        {
            let backend = backend.clone();
            let service = self.ask_backend(at, &backend, targ, regex, reading)?;
            let services = &mut self.declared[at].services;
            if !services.contains(&service) {
                services.push(service);
            }
            return Some(Got::Remote(TableId(u32::try_from(at).expect("a file has fewer tables"))));
        }
        let service = if regex { ServiceKind::Regex } else { targ.used.service };
        let place = at.map_or(Place::Here(targ.span), Place::Table);
        let wanted = Wanted { place, service, shape: targ.used.shape, regex };
        if let Some(built) = self.built.get(&wanted) {
            return built.clone().map(Got::Memory);
        }
        let body = match at {
            Some(at) => self.body(at, reading),
            None => Body::of(targ),
        };
        let builder = Builder { targ, table: at.map(|at| &self.declared[at]), regex };
        let part = builder.build(&body, reading);
        if let (Some(at), Some(_)) = (at, &part) {
            self.declared[at].services.push(service);
        }
        self.built.insert(wanted, part.clone());
        part.map(Got::Memory)
    }

    /// The number of a declared table; marks it as used.
    fn find(&mut self, name: &str, targ: &Targ, reading: &mut Reading<'_>) -> Option<usize> {
        if let Some(at) = self.index.get(name).copied() {
            self.declared[at].used = true;
            return Some(at);
        }
        if BUILT_IN_TABLES.contains(&name) {
            self.index.insert(name.to_owned(), self.declared.len());
            self.declared.push(Declared {
                name: name.to_owned(),
                name_span: targ.span,
                source: Source::built_in(name),
                options: TableOptions::default(),
                used: true,
                services: Vec::new(),
                said: None,
            });
            return Some(self.declared.len() - 1);
        }
        // Of the names that would be right here: those of tables with a fitting shape.
        let fits = |t: &&Declared| targ.used.shape == Shape::List || t.source.may_be_mapping();
        let near = reading.nearest(name, self.declared.iter().filter(fits).map(|t| t.name.as_str()));
        let near = near.and_then(|near| self.declared.iter().find(|t| t.name == near));
        let help = near.map(|t| format!("did you mean <{}>, declared at {}?", t.name, reading.texts.at(t.name_span)));
        let report = Report::new("E0301", targ.span, format!("no such table: <{name}>"));
        reading.report(report.label("not declared in any file").maybe_help(help));
        None
    }

    /// Where its entries are; a data file is read when it is first needed.
    fn body(&mut self, at: usize, reading: &mut Reading<'_>) -> Body {
        let path = match &self.declared[at].source {
            Source::Static(list) => return Body::Entries(list.clone()),
            Source::LocalNames => return Body::LocalNames,
            Source::File { path, .. } => path,
            Source::Broken | Source::Remote(_) => return Body::Broken,
        };
        let data = *self.data.entry(at).or_insert_with(|| {
            let file = reading.place(path.span.file, &path.text);
            match crate::load::read_data(reading.source, &file, &mut reading.texts, &mut reading.reports) {
                Ok(file) => Some(file),
                Err(error) => {
                    let message = format!("cannot read `{}`: {error}", path.text);
                    reading.reports.push(Report::new("E0701", path.span, message));
                    None
                }
            }
        });
        data.map_or(Body::Broken, Body::Data)
    }

    /// W0803.
    pub(super) fn unused(&self, reading: &mut Reading<'_>) {
        // One that broke off may have been meant for what is broken elsewhere.
        for table in self.declared.iter().filter(|t| !t.used && !matches!(t.source, Source::Broken)) {
            reading.report(Report::new("W0803", table.name_span, format!("table `{}` is never used", table.name)));
        }
    }

    /// The tables of the model. Everything must have been asked for by now.
    pub(super) fn export(self, reading: &Reading<'_>) -> Vec<Table> {
        let Self { declared, built, .. } = self;
        let mut tables: Vec<Table> = declared
            .into_iter()
            .map(|table| Table {
                statement: table.said.as_ref().map_or_else(String::new, |said| statement(said, &table.services)),
                backend: table.source.backend(reading),
                options: table.options,
                services: { sorted(table.services) },
                memory: MemoryTable::default(),
                line: reading.line(table.name_span),
                name: table.name,
            })
            .collect();
        let mut parts: Vec<(Wanted, Part)> =
            built.into_iter().filter_map(|(wanted, part)| Some((wanted, part?))).collect();
        parts.sort_by_key(|(wanted, _)| (wanted.service, wanted.shape));
        for (wanted, part) in parts {
            if let Place::Table(at) = wanted.place {
                tables[at].memory.add(part);
            }
        }
        tables
    }

    // ---- what the statements ask for, by type

    /// `[regex] targ` of a condition.
    pub(super) fn among<T>(&mut self, arg: &Arg, reading: &mut Reading<'_>) -> Option<Among<T>>
    where
        Part: Of<Arc<T>>,
    {
        match arg {
            Arg::Regex(targ) => match self.get(targ, true, reading)? {
                Got::Memory(Part::Patterns(patterns)) => Some(Among::Regex(patterns)),
                _ => None,
            },
            Arg::Targ(targ) => match self.get(targ, false, reading)? {
                Got::Memory(part) => part.of().map(Among::Table),
                Got::Remote(table) => Some(Among::Remote { table, service: targ.used.service }),
            },
            _ => None,
        }
    }

    /// The same where it may be left out.
    pub(super) fn maybe_among<T>(&mut self, arg: &Arg, reading: &mut Reading<'_>) -> Option<Option<Among<T>>>
    where
        Part: Of<Arc<T>>,
    {
        match arg {
            Arg::Nothing => Some(None),
            arg => self.among(arg, reading).map(Some),
        }
    }

    /// A mapping.
    pub(super) fn keyed<V>(&mut self, targ: &Targ, reading: &mut Reading<'_>) -> Option<Keyed<V>>
    where
        Part: Of<Arc<Mapped<V>>>,
    {
        match self.get(targ, false, reading)? {
            Got::Memory(part) => part.of().map(Keyed::Memory),
            Got::Remote(table) => Some(Keyed::Remote(table)),
        }
    }

    /// A list that is kept in order: its entries, or the table that must be asked for them.
    pub(super) fn cycled<T: Clone>(
        &mut self,
        targ: &Targ,
        reading: &mut Reading<'_>,
    ) -> Option<(Vec<T>, Option<TableId>)>
    where
        Part: Of<Arc<Vec<T>>>,
    {
        match self.get(targ, false, reading)? {
            Got::Memory(part) => part.of().map(|list: Arc<Vec<T>>| (list.to_vec(), None)),
            Got::Remote(table) => Some((Vec::new(), Some(table))),
        }
    }

    /// The keys as they were written, of a table in memory that was good.
    pub(super) fn keys(&mut self, targ: &Targ, reading: &mut Reading<'_>) -> Vec<String> {
        let body = match &targ.what {
            TargKind::Table(name) => match self.find(name, targ, reading) {
                Some(at) => self.body(at, reading),
                None => Body::Broken,
            },
            _ => Body::of(targ),
        };
        let mut keys = Vec::new();
        body.each_key(&reading.texts, &mut |key, _, _| keys.push(key.to_owned()));
        keys
    }
}

/// As it was declared. Where values may be passwords or keys, none is shown.
fn statement(said: &Said, services: &[ServiceKind]) -> String {
    let is_secret = |service| matches!(service, ServiceKind::Credentials | ServiceKind::Auth | ServiceKind::Cert);
    // What nobody uses may be anything.
    if !services.is_empty() && !services.iter().copied().any(is_secret) {
        return canonical::statement(said);
    }
    let mut said = said.clone();
    for arg in &mut said.head {
        if let Arg::Entries(entries) = arg {
            let mut hidden = (**entries).clone();
            hidden.list.iter_mut().flat_map(|entry| &mut entry.values).for_each(|value| value.text = "…".into());
            *entries = Rc::new(hidden);
        }
    }
    canonical::statement(&said)
}

fn sorted(mut services: Vec<ServiceKind>) -> Vec<ServiceKind> {
    services.sort_unstable();
    services.dedup();
    services
}

/// What is in a [`Part`], if it is of this type.
pub(super) trait Of<T> {
    fn of(self) -> Option<T>;
}

macro_rules! parts {
    ($($variant:ident: $type:ty,)*) => {
        $(impl Of<Arc<$type>> for Part {
            fn of(self) -> Option<Arc<$type>> {
                match self {
                    Self::$variant(part) => Some(part),
                    _ => None,
                }
            }
        })*
    };
}

parts! {
    Aliases: Mapped<Vec<AliasTarget>>,
    Domains: DomainSet,
    Credentials: Mapped<Credentials>,
    Users: Mapped<UserRecord>,
    Networks: SourceSet,
    Sources: Vec<IpAddr>,
    HostNames: Mapped<HostName>,
    Addresses: AddressSet,
    AddressesOf: Mapped<Vec<AddressPattern>>,
    RelayHosts: Vec<RelayHost>,
    Routes: Mapped<RelayHost>,
    Words: WordSet,
    Certificates: Mapped<Certificate>,
    Subjects: Mapped<UserName>,
    Dkim: Mapped<DkimKey>,
}
