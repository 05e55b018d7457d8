//! CREATE FUNCTION: what a function takes and gives is known, and its body is bound, when it is
//! created; where it is called its body takes the place of the call (`bind::expand::inlined`).

use crate::bind::collects_parameters;
use crate::functions::{base, declared, returned_text, signature, types_of, unmodified};
use crate::parse::parse_query;
use crate::query::Bound;
use crate::signatures::{Arg, argument_name, assigns, type_text};
use crate::statement::{CreateFunction, Positions, Returns, Statement, StatementKind};
use crate::{Planned, Planner};
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{self, Expr, Ident, Query, SetExpr, VisitMut, VisitorMut};
use std::ops::ControlFlow;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::messages::sql_type_name;
use tidemark_plan::{Column, Relation, RelationKind};

/// `invalid_function_definition`.
const INVALID: SqlState = SqlState("42P13");

/// As many parameters as a function may have.
const PARAMETERS_MAX: usize = 100;

impl Planner {
    /// Plans CREATE FUNCTION: its catalog entry. `old` is the function that it replaces.
    ///
    /// Errors: `42P13` for a definition that is none, those of the body, and `0A000` for types that
    /// functions cannot have and names of built-in functions.
    pub fn plan_function(
        &self,
        id: RelationId,
        statement: &Statement,
        owner: &str,
        old: Option<&Relation>,
    ) -> Result<Planned> {
        let StatementKind::CreateFunction(create) = &statement.kind else {
            return Err(Error::internal("not a CREATE FUNCTION"));
        };
        if self.registry.knows(&create.name.name) {
            let message = format!(
                "functions that are called like a built-in one are not supported: {}",
                create.name.name
            );
            return Err(Error::unsupported(message).at(create.name.position));
        }
        let Some(returns) = &create.returns else {
            return Err(Error::user(
                INVALID,
                "function result type must be specified",
            ));
        };
        let columns = parameters(create)?;
        if collects_parameters(create, &self.provider()) {
            let message = "an aggregate of nothing but parameters is not supported in a function";
            return Err(Error::unsupported(message)
                .at(create.name.position)
                .with_detail("Where the function is called it would be one of the query there."));
        }
        let given = given(create, returns)?;
        let bound = self.bound_body(create, returns)?;
        check_result(&bound, &given, returns)?;
        let at_all = bound.relations.iter();
        if let Some(old) = old
            && at_all.clone().any(|id| *id == old.id)
        {
            let message = format!("function {} would call itself", signature(old));
            return Err(Error::unsupported(message).at(create.name.position));
        }
        let mut relation = self.relation(
            id,
            &create.name,
            RelationKind::Function,
            Vec::new(),
            statement,
            owner,
        )?;
        relation.columns = columns;
        relation.query = create.body_text.clone();
        // The names in a text are looked up when it is called.
        if create.is_return {
            relation.depends_on = at_all.copied().collect();
            relation.named = bound.named;
            relation.altered.seen = self.altered_so_far(&relation);
        }
        if let Some(old) = old {
            check_replaced(old, &relation, create)?;
        }
        Ok(Planned {
            relation,
            notices: Vec::new(),
            reads: bound.reads,
        })
    }

    /// Whether a function of this name is built in.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.registry.knows(name)
    }

    /// The body as a query over a row of parameters.
    fn bound_body(&self, create: &CreateFunction, returns: &Returns) -> Result<Bound> {
        let one = |body: &Query| match body.body.as_ref() {
            SetExpr::Select(select) => select.projection.len() == 1,
            _ => true,
        };
        let mut body = create.body.clone();
        by_number(&mut body, create)?;
        let arguments = arguments(create);
        let holder = Ident::with_quote('"', &create.name.name);
        let is_value = matches!(returns, Returns::Value(_));
        if is_value && !one(&body) {
            return Err(mismatch(
                &returned_text(create)?,
                "Final statement must return exactly one column.",
            ));
        }
        let text = match (is_value, create.parameters.is_empty()) {
            (_, true) => None,
            (true, _) => Some(format!(
                "SELECT (SELECT NULL) AS value FROM (SELECT {arguments}) AS {holder}"
            )),
            (false, _) => Some(format!(
                "SELECT rows.* FROM (SELECT {arguments}) AS {holder} CROSS JOIN LATERAL (SELECT \
                 NULL) AS rows"
            )),
        };
        let query = match text {
            Some(text) => {
                let mut query = parse_query(&text)?;
                put_body(&mut query, body);
                query
            }
            None => body,
        };
        self.bind(&query, &Positions::default(), false, false)
    }
}

/// Puts a body in place of the subquery that stands for it.
fn put_body(query: &mut Query, body: Box<Query>) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    if let [ast::SelectItem::ExprWithAlias { expr, .. }] = select.projection.as_mut_slice() {
        *expr = match only_expression(&body) {
            Some(value) => value,
            None => Expr::Subquery(body),
        };
        return;
    }
    let joins = select.from.iter_mut().flat_map(|f| f.joins.iter_mut());
    for join in joins {
        if let ast::TableFactor::Derived { subquery, .. } = &mut join.relation {
            *subquery = body;
            return;
        }
    }
}

/// The expression of a body that is `SELECT expression`.
fn only_expression(body: &Query) -> Option<Expr> {
    let SetExpr::Select(select) = body.body.as_ref() else {
        return None;
    };
    let [ast::SelectItem::UnnamedExpr(value)] = select.projection.as_slice() else {
        return None;
    };
    (body.to_string() == format!("SELECT {value}")).then(|| value.clone())
}

/// `NULL::type AS name, ..`.
fn arguments(create: &CreateFunction) -> String {
    let each = create.parameters.iter().enumerate().map(|(at, p)| {
        let number = || format!("${}", at + 1);
        let name = Ident::with_quote('"', p.name.clone().unwrap_or_else(number));
        format!("NULL::{} AS {name}", unmodified(&p.data_type))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// References to parameters by their numbers become such by name.
///
/// Errors: `42P02` for one that is not there.
fn by_number(body: &mut Query, create: &CreateFunction) -> Result<()> {
    struct Numbers<'a>(&'a CreateFunction);
    impl VisitorMut for Numbers<'_> {
        type Break = Error;
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
            let Expr::Value(v) = &*expr else {
                return ControlFlow::Continue(());
            };
            let ast::Value::Placeholder(text) = &v.value else {
                return ControlFlow::Continue(());
            };
            let number = text.strip_prefix('$').and_then(|n| n.parse().ok());
            let at = number.and_then(|n: usize| n.checked_sub(1));
            let Some(parameter) = at.and_then(|at| self.0.parameters.get(at)) else {
                let message = format!("there is no parameter {text}");
                return ControlFlow::Break(Error::user(SqlState("42P02"), message));
            };
            let name = parameter.name.clone().unwrap_or_else(|| text.clone());
            *expr = Expr::CompoundIdentifier(vec![
                Ident::with_quote('"', &self.0.name.name),
                Ident::with_quote('"', name),
            ]);
            ControlFlow::Continue(())
        }
    }
    match VisitMut::visit(body, &mut Numbers(create)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The parameters as columns.
fn parameters(create: &CreateFunction) -> Result<Vec<Column>> {
    if create.parameters.len() > PARAMETERS_MAX {
        let message = format!("functions cannot have more than {PARAMETERS_MAX} arguments");
        return Err(Error::user(SqlState("54023"), message));
    }
    let one = |p: &crate::statement::Parameter| {
        let (data_type, sql_type) = base(&p.data_type)?;
        if argument_name("", std::slice::from_ref(&data_type), 0).is_none() {
            let message = format!("parameters of type {} are not supported", p.data_type);
            return Err(Error::unsupported(message).at(create.name.position));
        }
        Ok(Column {
            name: p.name.clone().unwrap_or_default(),
            data_type,
            nullable: true,
            default: p.default.as_ref().map(Expr::to_string),
            sql_type,
        })
    };
    create.parameters.iter().map(one).collect()
}

/// The types that a function gives.
fn given(create: &CreateFunction, returns: &Returns) -> Result<Vec<DataType>> {
    let types: Vec<&ast::DataType> = match returns {
        Returns::Value(one) | Returns::Values(one) => vec![one],
        Returns::Rows(columns) => {
            for (at, (name, _)) in columns.iter().enumerate() {
                let parameters = create.parameters.iter().filter_map(|p| p.name.as_ref());
                let mut before = columns[..at].iter().map(|(n, _)| n).chain(parameters);
                if before.any(|n| n == name) {
                    let message = format!("parameter name \"{name}\" used more than once");
                    return Err(Error::user(INVALID, message));
                }
            }
            columns.iter().map(|(_, t)| t).collect()
        }
    };
    types.into_iter().map(|t| Ok(base(t)?.0)).collect()
}

fn mismatch(declared: &str, detail: &str) -> Error {
    let message = format!("return type mismatch in function declared to return {declared}");
    Error::user(INVALID, message).with_detail(detail)
}

/// Errors: `42P13` where the body gives something else than is declared.
fn check_result(bound: &Bound, given: &[DataType], returns: &Returns) -> Result<()> {
    let declared = match returns {
        Returns::Value(_) | Returns::Values(_) => sql_type_name(&given[0]),
        Returns::Rows(_) => "record".into(),
    };
    let fields = bound.plan.schema().fields();
    if fields.len() != given.len() {
        let detail = match returns {
            Returns::Rows(_) if fields.len() > given.len() => {
                "Final statement returns too many columns."
            }
            Returns::Rows(_) => "Final statement returns too few columns.",
            _ => "Final statement must return exactly one column.",
        };
        return Err(mismatch(&declared, detail));
    }
    for (at, (field, to)) in fields.iter().zip(given).enumerate() {
        let is = Arg::new(field.data_type(), None);
        if assigns(&is, to) {
            continue;
        }
        let is = type_text(&is);
        let detail = match returns {
            Returns::Rows(_) => format!(
                "Final statement returns {is} instead of {} at column {}.",
                sql_type_name(to),
                at + 1
            ),
            _ => format!("Actual return type is {is}."),
        };
        return Err(mismatch(&declared, &detail));
    }
    Ok(())
}

/// Errors: `42P13` for what `OR REPLACE` may not change, `0A000` for other types of arguments.
fn check_replaced(old: &Relation, new: &Relation, create: &CreateFunction) -> Result<()> {
    let before = declared(old)?;
    let signature = signature(old);
    if types_of(old) != types_of(new) {
        let message = format!(
            "functions of one name with as many arguments of other types are not supported: there \
             is {signature}"
        );
        return Err(Error::unsupported(message)
            .with_hint("Give it another name, or drop the one that there is."));
    }
    let changed = |message: &str| {
        Err(Error::user(INVALID, message)
            .with_hint(format!("Use DROP FUNCTION {signature} first.")))
    };
    if returned_text(&before)? != returned_text(create)? {
        return changed("cannot change return type of existing function");
    }
    for (was, is) in before.parameters.iter().zip(&create.parameters) {
        if let Some(name) = &was.name
            && is.name.as_ref() != Some(name)
        {
            return changed(&format!("cannot change name of input parameter \"{name}\""));
        }
        if was.default.is_some() && is.default.is_none() {
            return changed("cannot remove parameter defaults from existing function");
        }
    }
    Ok(())
}
