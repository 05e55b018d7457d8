//! The statements of Tidemark's dialect, as the parser hands them out: names folded and positioned,
//! options as text, queries as `sqlparser` trees. Nothing here has looked at the catalog.

use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::tokenizer::Location;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_plan::{Conflict, Encode, Format, Include, NewObject, Privilege, RelationKind};

/// Where lines begin in the text that was handed to `parse`: turns a line and column into a
/// character position.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    starts: Arc<Vec<usize>>,
    end: usize,
}

impl Positions {
    /// Of a text.
    pub fn new(sql: &str) -> Positions {
        let (mut starts, mut at) = (vec![0], 0);
        for line in sql.split_inclusive('\n') {
            at += line.chars().count();
            starts.extend(line.ends_with('\n').then_some(at));
        }
        Positions {
            starts: Arc::new(starts),
            end: sql.trim_end().chars().count() + 1,
        }
    }

    /// The position after the text's last character; none of synthesised text.
    pub fn end(&self) -> Option<usize> {
        if self.end > 0 { Some(self.end) } else { None }
    }

    /// The position of a location, in characters counted from 1; none for the location of
    /// synthesised text.
    pub fn of(&self, location: Location) -> Option<usize> {
        let line = (location.line as usize).checked_sub(1)?;
        self.starts
            .get(line)
            .map(|start| start + location.column as usize)
    }
}

/// One statement with its own text.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its text, without the semicolon, and without the values in it that are secret.
    pub text: String,
    /// Characters of the whole text that stand before it.
    pub start: usize,
    /// Line starts of the whole text that was parsed: error positions count in that text, as
    /// PostgreSQL's do.
    pub positions: Positions,
    /// What it says.
    pub kind: StatementKind,
}

/// A possibly qualified name, folded as in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The schema, if written.
    pub schema: Option<String>,
    /// The name itself.
    pub name: String,
    /// Where it stands, in characters counted from 1; 0 if unknown.
    pub position: usize,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A column of CREATE SOURCE or CREATE TABLE.
#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    /// Folded name.
    pub name: String,
    /// As written.
    pub data_type: ast::DataType,
    /// `NOT NULL` (a primary key implies it, too).
    pub not_null: bool,
    /// `DEFAULT`, as SQL text.
    pub default: Option<String>,
    /// `AS expression`.
    pub generated: Option<ast::Expr>,
    /// Where it stands.
    pub position: usize,
}

/// `FORMAT f ENCODE e (...) [KEY ENCODE k]`.
#[derive(Clone, Debug)]
pub struct FormatClause {
    /// How records become rows.
    pub format: Format,
    /// How values are encoded.
    pub encode: Encode,
    /// In the parentheses.
    pub options: BTreeMap<String, String>,
    /// Of the record key, if written: `json`, `text` or `bytes`.
    pub key_encode: Option<String>,
}

/// `WATERMARK FOR column AS column - delay`.
#[derive(Clone, Debug)]
pub struct WatermarkClause {
    /// Folded column name.
    pub column: String,
    /// Microseconds.
    pub delay_micros: i64,
    /// Where it stands.
    pub position: usize,
}

/// `CREATE SOURCE` and `CREATE TABLE`.
#[derive(Clone, Debug)]
pub struct CreateRelation {
    /// What is created.
    pub name: Name,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// As written; empty for a generator whose columns are known.
    pub columns: Vec<ColumnDefinition>,
    /// Relations whose columns are taken, in their order.
    pub likes: Vec<Like>,
    /// Folded column names.
    pub primary_key: Vec<String>,
    /// At most one.
    pub watermark: Option<WatermarkClause>,
    /// `APPEND ONLY`.
    pub append_only: bool,
    /// `ON CONFLICT`.
    pub on_conflict: Option<Conflict>,
    /// `INCLUDE what [AS name]`.
    pub includes: Vec<(Include, Option<String>)>,
    /// `WITH (...)`, keys in lower case.
    pub options: BTreeMap<String, String>,
    /// Those of them that are `SECRET name`.
    pub secrets: BTreeMap<String, Name>,
    /// `FORMAT ... ENCODE ...`.
    pub format: Option<FormatClause>,
}

/// `LIKE relation [INCLUDING ..]` among the columns of CREATE TABLE.
#[derive(Clone, Debug)]
pub struct Like {
    /// The relation.
    pub name: Name,
    /// So many columns stand before it.
    pub behind: usize,
    /// With their defaults.
    pub defaults: bool,
    /// Its generated columns are generated.
    pub generated: bool,
    /// With its primary key.
    pub indexes: bool,
}

impl CreateRelation {
    /// Without anything but its name.
    pub(crate) fn named(name: Name) -> CreateRelation {
        CreateRelation {
            name,
            if_not_exists: false,
            or_replace: false,
            columns: Vec::new(),
            likes: Vec::new(),
            primary_key: Vec::new(),
            watermark: None,
            append_only: false,
            on_conflict: None,
            includes: Vec::new(),
            options: BTreeMap::new(),
            secrets: BTreeMap::new(),
            format: None,
        }
    }
}

/// `CREATE [MATERIALIZED] VIEW`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// What is created.
    pub name: Name,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// Column names in parentheses, or none.
    pub columns: Vec<String>,
    /// `WITH (...)`.
    pub options: BTreeMap<String, String>,
    /// The query.
    pub query: Box<ast::Query>,
    /// The query's own text.
    pub query_text: String,
    /// `EMIT ON WINDOW CLOSE`.
    pub emit_on_window_close: bool,
}

/// What a sink sends.
#[derive(Clone, Debug)]
pub enum SinkInput {
    /// `FROM relation`.
    Relation(Name),
    /// `AS query`, with its text, and whether it ends in `EMIT ON WINDOW CLOSE`.
    Query(Box<ast::Query>, String, bool),
}

/// `CREATE SINK`.
#[derive(Clone, Debug)]
pub struct CreateSink {
    /// What is created.
    pub name: Name,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `INTO table [(columns)]`.
    pub into: Option<(Name, Vec<String>)>,
    /// `FROM` or `AS`.
    pub input: SinkInput,
    /// `WITH (...)`.
    pub options: BTreeMap<String, String>,
    /// Those of them that are `SECRET name`.
    pub secrets: BTreeMap<String, Name>,
    /// `FORMAT ... ENCODE ...`.
    pub format: Option<FormatClause>,
}

/// `CREATE SUBSCRIPTION`.
#[derive(Clone, Debug)]
pub struct CreateSubscription {
    /// What is created.
    pub name: Name,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// Whose changes it keeps.
    pub from: Name,
    /// `WITH (...)`.
    pub options: BTreeMap<String, String>,
}

/// `CREATE FUNCTION`.
#[derive(Clone, Debug)]
pub struct CreateFunction {
    /// What is created.
    pub name: Name,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// In their order.
    pub parameters: Vec<Parameter>,
    /// What it gives; none if nothing says so.
    pub returns: Option<Returns>,
    /// `STRICT`: NULL for an argument that is NULL.
    pub strict: bool,
    /// What it is declared as: `IMMUTABLE`, `STABLE` or `VOLATILE`.
    pub volatility: &'static str,
    /// Whether the body is written as `RETURN expression`.
    pub is_return: bool,
    /// The query that is its body.
    pub body: Box<ast::Query>,
    /// The body's text, as it is written.
    pub body_text: String,
}

/// A parameter of a function.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Folded; none if it has only a number.
    pub name: Option<String>,
    /// As written.
    pub data_type: ast::DataType,
    /// `DEFAULT`.
    pub default: Option<ast::Expr>,
}

/// What a function gives.
#[derive(Clone, Debug)]
pub enum Returns {
    /// One value.
    Value(ast::DataType),
    /// `SETOF`: rows of one value.
    Values(ast::DataType),
    /// `TABLE (..)`: rows of these columns.
    Rows(Vec<(String, ast::DataType)>),
}

/// A function as DROP, ALTER and COMMENT name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionName {
    /// Its name.
    pub name: Name,
    /// The types of its parameters, if they are written.
    pub types: Option<Vec<ast::DataType>>,
}

/// Where a subscription cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what changes from now on.
    Now,
    /// With the oldest change that is kept.
    Begin,
    /// With the changes of this time, in milliseconds since 1970, and those after.
    Millis(i64),
    /// With the rows that there are, and then what changes.
    Full,
}

/// `DROP`.
#[derive(Clone, Debug)]
pub struct Drop {
    /// What kind of relation.
    pub kind: RelationKind,
    /// Which.
    pub names: Vec<Name>,
    /// `IF EXISTS`.
    pub if_exists: bool,
    /// `CASCADE`.
    pub cascade: bool,
}

/// What ALTER does.
#[derive(Clone, Debug)]
pub enum AlterAction {
    /// `RENAME TO`.
    RenameTo(String),
    /// `SET SCHEMA`.
    SetSchema(String),
    /// `OWNER TO`.
    OwnerTo(String),
    /// `SET PARALLELISM = n`; accepted, workers decide.
    SetParallelism(String),
    /// `SWAP WITH`.
    SwapWith(Name),
    /// `RESUME`.
    Resume,
    /// `ADD`, `DROP` and `RENAME COLUMN`.
    Columns(Vec<ColumnAction>),
}

/// What ALTER does to a column.
#[derive(Clone, Debug)]
pub enum ColumnAction {
    /// `ADD COLUMN`.
    Add {
        /// The column.
        column: Box<ColumnDefinition>,
        /// `IF NOT EXISTS`.
        if_not_exists: bool,
    },
    /// `DROP COLUMN`.
    Drop {
        /// The column.
        name: String,
        /// `IF EXISTS`.
        if_exists: bool,
        /// `CASCADE`.
        cascade: bool,
    },
    /// `RENAME COLUMN`.
    Rename {
        /// The column.
        name: String,
        /// Its new name.
        to: String,
    },
}

/// What SHOW shows.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShowKind {
    Tables,
    Sources,
    MaterializedViews,
    Views,
    Sinks,
    Indexes,
    Connections,
    Secrets,
    Functions,
    Schemas,
    Databases,
    Subscriptions,
    Users,
    Jobs,
    Cluster,
    /// Who does what part of which job.
    Placement,
    Checkpoints,
    Memory,
    Processlist,
    Parameters,
    Columns(Name),
    Create(RelationKind, Name),
    CreateFunction(FunctionName),
    /// A setting, or `all`.
    Variable(String),
}

/// What privileges are granted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Relations.
    Relations(Vec<Name>),
    /// All relations that are in these schemas now.
    AllIn(Vec<String>),
    /// Schemas.
    Schemas(Vec<String>),
    /// Databases.
    Databases(Vec<String>),
}

/// What CREATE ROLE and ALTER ROLE say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleOption {
    /// `SUPERUSER`, `NOSUPERUSER`.
    Superuser(bool),
    /// `LOGIN`, `NOLOGIN`.
    Login(bool),
    /// `PASSWORD 'text'`, or a verifier, as PostgreSQL dumps them; none takes it away.
    Password(Option<String>),
    /// `VALID UNTIL 'timestamptz'`.
    ValidUntil(String),
}

/// What a statement says.
#[derive(Clone, Debug)]
pub enum StatementKind {
    /// `CREATE SOURCE`.
    CreateSource(CreateRelation),
    /// `CREATE TABLE`.
    CreateTable(CreateRelation),
    /// `CREATE MATERIALIZED VIEW`.
    CreateMaterializedView(CreateView),
    /// `CREATE VIEW`.
    CreateView(CreateView),
    /// `CREATE SINK`.
    CreateSink(CreateSink),
    /// `CREATE SUBSCRIPTION`.
    CreateSubscription(CreateSubscription),
    /// `DECLARE cursor SUBSCRIPTION CURSOR FOR subscription`.
    DeclareSubscription {
        cursor: String,
        subscription: Name,
        since: Since,
    },
    /// `CREATE INDEX`, as sqlparser reads it.
    CreateIndex(Box<ast::CreateIndex>),
    /// `CREATE SCHEMA`.
    CreateSchema { name: String, if_not_exists: bool },
    /// `DROP SCHEMA`.
    DropSchema {
        names: Vec<String>,
        if_exists: bool,
        cascade: bool,
    },
    /// `CREATE FUNCTION`.
    CreateFunction(Box<CreateFunction>),
    /// `DROP FUNCTION`.
    DropFunction {
        names: Vec<FunctionName>,
        if_exists: bool,
        cascade: bool,
    },
    /// `ALTER FUNCTION`.
    AlterFunction {
        name: FunctionName,
        action: AlterAction,
    },
    /// `COMMENT ON FUNCTION`.
    CommentOnFunction {
        name: FunctionName,
        comment: Option<String>,
    },
    /// `DROP` of relations.
    Drop(Drop),
    /// `ALTER` of a relation.
    Alter {
        kind: RelationKind,
        name: Name,
        if_exists: bool,
        action: AlterAction,
    },
    /// `SELECT`, `VALUES`, `INSERT`, `UPDATE`, `DELETE`.
    Sql(Box<ast::Statement>),
    /// `EXPLAIN [ANALYZE] [VERBOSE] statement`.
    Explain {
        analyze: bool,
        verbose: bool,
        format: Option<String>,
        statement: Box<Statement>,
    },
    /// `EXPLAIN ANALYZE {MATERIALIZED VIEW v | SINK k | TABLE t | SOURCE s}`.
    ExplainJob { kind: RelationKind, name: Name },
    /// `SHOW`, with `FROM schema` and `LIKE pattern`.
    Show {
        what: ShowKind,
        schema: Option<String>,
        like: Option<String>,
    },
    /// `DESCRIBE relation`.
    Describe(Name),
    /// `FLUSH`.
    Flush,
    /// `CREATE TABLE .. AS`.
    CreateTableAs {
        name: Name,
        if_not_exists: bool,
        /// Names for the first of the query's columns.
        columns: Vec<String>,
        query: Box<Statement>,
    },
    /// `CREATE {ROLE|USER}`.
    CreateRole {
        name: String,
        /// As USER: it may log in.
        user: bool,
        options: Vec<RoleOption>,
    },
    /// `ALTER {ROLE|USER}`.
    AlterRole {
        name: String,
        options: Vec<RoleOption>,
    },
    /// `GRANT privileges ON ..`, `REVOKE privileges ON ..`.
    Grant {
        revokes: bool,
        privileges: Vec<Privilege>,
        on: Granted,
        /// Roles; none is everybody.
        grantees: Vec<Option<String>>,
        /// `WITH GRANT OPTION`, `GRANT OPTION FOR`.
        option: bool,
        /// REVOKE .. `CASCADE`.
        cascade: bool,
    },
    /// `ALTER DEFAULT PRIVILEGES`.
    DefaultPrivileges {
        /// Whose; none is the session's role.
        roles: Vec<String>,
        /// In which schemas; none is every one.
        schemas: Vec<String>,
        of: NewObject,
        revokes: bool,
        privileges: Vec<Privilege>,
        /// Roles; none is everybody.
        grantees: Vec<Option<String>>,
        /// `WITH GRANT OPTION`, `GRANT OPTION FOR`.
        option: bool,
    },
    /// `GRANT roles TO roles`, `REVOKE roles FROM roles`.
    GrantRoles {
        revokes: bool,
        roles: Vec<String>,
        members: Vec<String>,
    },
    /// `DROP {ROLE|USER}`.
    DropRole { names: Vec<String>, if_exists: bool },
    /// `CREATE SECRET`.
    CreateSecret {
        name: Name,
        if_not_exists: bool,
        value: String,
    },
    /// `ALTER SECRET`.
    AlterSecret { name: Name, value: String },
    /// `DROP SECRET`.
    DropSecret { names: Vec<Name>, if_exists: bool },
    /// `WAIT`.
    Wait,
    /// `REFRESH MATERIALIZED VIEW`.
    Refresh(Name),
    /// `CANCEL JOBS`.
    CancelJobs(Vec<u32>),
    /// `ALTER CLUSTER REMOVE NODE`.
    RemoveNode(u64),
    /// `ALTER CLUSTER DRAIN NODE`, and the inverse, `RESUME NODE`.
    DrainNode { node: u64, is_drained: bool },
    /// `SET [SESSION|LOCAL] name {=|TO} value`; no value means DEFAULT.
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// `RESET name`; none means ALL.
    Reset(Option<String>),
    /// `BEGIN`, `START TRANSACTION`.
    Begin { read_only: bool },
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// `COPY`.
    Copy(Box<Copy>),
    /// `COMMENT ON kind name IS comment`; of a column the last part of the name is the column.
    CommentOn {
        object: String,
        name: Vec<String>,
        comment: Option<String>,
    },
    /// `SUBSCRIBE TO relation [WITH (snapshot = ...)]`.
    Subscribe(Subscribe),
    /// `FETCH`, `MOVE`.
    Fetch {
        cursor: String,
        rows: FetchRows,
        /// MOVE: the rows are not sent.
        moves: bool,
        /// `WITH (timeout = ..)`, in microseconds: how long a subscription's cursor waits.
        timeout: Option<i64>,
    },
    /// `TRUNCATE`: a DELETE of each table's rows.
    Truncate(Vec<ast::Statement>),
    /// Whatever else sqlparser knows: PREPARE, cursors, SAVEPOINT, DISCARD, GRANT, ...
    Other(Box<ast::Statement>),
}

/// Which rows FETCH and MOVE want.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FetchRows {
    /// So many that come next.
    Next(usize),
    /// All that come.
    All,
    /// Those before, or at a place.
    Elsewhere,
}

/// `COPY what TO STDOUT` or `COPY what FROM STDIN`, with options.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// What is copied.
    pub what: Copied,
    /// To the client; otherwise from it.
    pub to: bool,
    /// Whether the other end is the client, and no file or program of the server's.
    pub client: bool,
    /// In the order in which they are written; any may be there twice.
    pub options: Vec<CopyOption>,
}

/// What COPY copies.
#[derive(Debug, Clone, PartialEq)]
pub enum Copied {
    /// The rows of a query.
    Query(Box<ast::Query>),
    /// A relation's rows and their changes.
    Changes(Subscribe),
    /// A relation, or some of its columns; none: all.
    Relation {
        name: ast::ObjectName,
        columns: Vec<ast::Ident>,
    },
}

/// `SUBSCRIBE TO relation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// The relation.
    pub name: Name,
    /// What it has now comes first.
    pub snapshot: bool,
}

/// An option of COPY.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyOption {
    /// In lower case.
    pub name: String,
    /// What it is set to.
    pub value: CopyValue,
    /// Where it stands, in characters from 1.
    pub position: usize,
}

impl CopyOption {
    /// An option at a place.
    pub fn new(name: &str, value: CopyValue, position: usize) -> CopyOption {
        CopyOption {
            name: name.to_string(),
            value,
            position,
        }
    }
}

/// What an option of COPY is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyValue {
    /// Nothing: it is named only.
    None,
    /// A word, a number or a quoted text.
    Text(String),
    /// These columns.
    Columns(Vec<String>),
    /// `*`: all columns.
    All,
}
