//! Roles, and what they may do: who owns a relation may do everything with it, a superuser
//! everything at all, and others what was granted to them, to a role that they are members of, or
//! to everybody.

use crate::{Catalog, Relation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use tidemark_common::RelationId;

/// The role that is there from the beginning. It is stored once it was altered.
pub const ROOT: &str = "root";

/// A role; a user is one that may log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it may do everything.
    pub superuser: bool,
    /// Whether it may log in.
    pub login: bool,
    /// What a password is held against: `SCRAM-SHA-256$iterations:salt$stored key:server key`, in
    /// base64. The password itself is nowhere. Without one, a role comes in from this machine only.
    pub verifier: Option<String>,
    /// When its password stops to count, in microseconds since 1970.
    pub valid_until: Option<i64>,
    /// Its number: given when it is made, and to no other role again; 0 of `root`.
    #[serde(default)]
    pub id: u32,
    /// The roles whose privileges it has, too.
    #[serde(default)]
    pub member_of: BTreeSet<String>,
}

impl Role {
    /// A role without password that may log in, and nothing more.
    pub fn new(name: impl Into<String>) -> Role {
        Role {
            name: name.into(),
            superuser: false,
            login: true,
            verifier: None,
            valid_until: None,
            id: 0,
            member_of: BTreeSet::new(),
        }
    }

    fn root() -> Role {
        Role {
            superuser: true,
            ..Role::new(ROOT)
        }
    }
}

/// What may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Privilege {
    /// Of relations: reading them.
    Select,
    /// Of tables: adding rows.
    Insert,
    /// Of tables: changing rows.
    Update,
    /// Of tables: removing rows.
    Delete,
    /// Of schemas: naming what is in them.
    Usage,
    /// Of schemas: creating relations; of the database: creating schemas.
    Create,
    /// Of the database: logging in.
    Connect,
}

impl Privilege {
    /// Those of relations.
    pub const OF_RELATIONS: &[Privilege] = &[
        Privilege::Select,
        Privilege::Insert,
        Privilege::Update,
        Privilege::Delete,
    ];
    /// Those of schemas.
    pub const OF_SCHEMAS: &[Privilege] = &[Privilege::Usage, Privilege::Create];
    /// Those of the database.
    pub const OF_DATABASES: &[Privilege] = &[Privilege::Create, Privilege::Connect];

    /// Its word in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Privilege::Select => "SELECT",
            Privilege::Insert => "INSERT",
            Privilege::Update => "UPDATE",
            Privilege::Delete => "DELETE",
            Privilege::Usage => "USAGE",
            Privilege::Create => "CREATE",
            Privilege::Connect => "CONNECT",
        }
    }

    /// Its letter in access lists.
    pub fn letter(self) -> char {
        match self {
            Privilege::Select => 'r',
            Privilege::Insert => 'a',
            Privilege::Update => 'w',
            Privilege::Delete => 'd',
            Privilege::Usage => 'U',
            Privilege::Create => 'C',
            Privilege::Connect => 'c',
        }
    }
}

/// What privileges are of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Object {
    /// A relation.
    Relation(RelationId),
    /// A schema, by its name.
    Schema(String),
    /// The database.
    Database,
}

/// One privilege of one grantee.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Of what.
    pub object: Object,
    /// Which.
    pub privilege: Privilege,
    /// A role's name; none is everybody.
    pub grantee: Option<String>,
    /// The role whose grant option it rests on; none is the owner.
    #[serde(default)]
    pub grantor: Option<String>,
    /// `WITH GRANT OPTION`: the grantee may grant it on.
    #[serde(default)]
    pub with_option: bool,
}

impl Grant {
    /// Of an owner, without grant option.
    pub fn new(object: Object, privilege: Privilege, grantee: Option<String>) -> Grant {
        Grant {
            object,
            privilege,
            grantee,
            grantor: None,
            with_option: false,
        }
    }

    /// Whether both are the same, but for the grant option.
    fn is_same(&self, other: &Grant) -> bool {
        let mut with = other.clone();
        with.with_option = self.with_option;
        *self == with
    }
}

/// What `ALTER DEFAULT PRIVILEGES` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NewObject {
    /// Relations.
    Relations,
    /// Schemas.
    Schemas,
}

/// A privilege that is granted on what a role makes from now on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefaultGrant {
    /// Who makes it.
    pub role: String,
    /// In which schema; none is every one.
    pub schema: Option<String>,
    /// What is made.
    pub of: NewObject,
    /// Which privilege.
    pub privilege: Privilege,
    /// A role's name; none is everybody.
    pub grantee: Option<String>,
    /// Whether the grantee may grant it on.
    pub with_option: bool,
}

impl DefaultGrant {
    fn is_same(&self, other: &DefaultGrant) -> bool {
        let mut with = other.clone();
        with.with_option = self.with_option;
        *self == with
    }
}

/// All that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants(pub BTreeSet<Grant>);

impl Default for Grants {
    /// Everybody may log in, and name what is in the schema `public`.
    fn default() -> Grants {
        let public = Object::Schema("public".into());
        let everybody = |(object, privilege)| Grant::new(object, privilege, None);
        let first = [
            (Object::Database, Privilege::Connect),
            (public, Privilege::Usage),
        ];
        Grants(first.into_iter().map(everybody).collect())
    }
}

impl Grants {
    /// What was granted of one thing.
    pub fn of<'a>(&'a self, object: &'a Object) -> impl Iterator<Item = &'a Grant> {
        // Ordered by what they are of.
        let first = Grant::new(object.clone(), Privilege::Select, None);
        self.0
            .range(first..)
            .take_while(move |g| g.object == *object)
    }

    /// One more; it keeps the grant option that the same one has.
    pub fn give(&mut self, mut grant: Grant) {
        let known = self.0.iter().find(|g| g.is_same(&grant)).cloned();
        if let Some(known) = known {
            grant.with_option |= known.with_option;
            self.0.remove(&known);
        }
        self.0.insert(grant);
    }

    /// Takes one back, or its grant option only.
    pub fn take(&mut self, grant: &Grant, option_only: bool) {
        let Some(known) = self.0.iter().find(|g| g.is_same(grant)).cloned() else {
            return;
        };
        self.0.remove(&known);
        if option_only {
            let with_option = false;
            self.0.insert(Grant {
                with_option,
                ..known
            });
        }
    }

    /// Those that rest on a grant option that their grantor does not have any more.
    pub fn without_grantor(&self) -> Vec<Grant> {
        let holds = |grantor: &str, of: &Grant| {
            let mut same = self.of(&of.object).filter(|g| g.privilege == of.privilege);
            same.any(|g| g.with_option && g.grantee.as_deref() == Some(grantor))
        };
        let lost = self.0.iter().filter(|g| {
            let grantor = g.grantor.as_deref();
            grantor.is_some_and(|grantor| !holds(grantor, g))
        });
        lost.cloned().collect()
    }

    /// Takes back what rests on grant options that are gone, and what rests on that.
    pub fn cascade(&mut self) {
        loop {
            let lost = self.without_grantor();
            if lost.is_empty() {
                return;
            }
            self.0.retain(|grant| !lost.contains(grant));
        }
    }

    /// The thing is gone.
    pub fn forget(&mut self, object: &Object) {
        self.0.retain(|g| g.object != *object);
    }

    /// One relation takes the place of another.
    pub fn pass_on(&mut self, old: RelationId, new: RelationId) {
        let (old, object) = (Object::Relation(old), Object::Relation(new));
        self.forget(&object);
        let passed = self.of(&old).cloned().map(|grant| Grant {
            object: object.clone(),
            ..grant
        });
        let passed: Vec<Grant> = passed.collect();
        self.0.extend(passed);
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Catalog {
    /// A role by its name.
    pub fn role(&self, name: &str) -> Option<Role> {
        let stored = self.roles.get(name).cloned();
        stored.or_else(|| (name == ROOT).then(Role::root))
    }

    /// The number of a role.
    pub fn role_id(&self, name: &str) -> Option<u32> {
        let stored = self.roles.get(name).map(|role| role.id);
        stored.or_else(|| (name == ROOT).then_some(0))
    }

    /// Gives a role that is new its number, and one that is altered the one that it has.
    pub fn put_role(&mut self, mut role: Role) {
        let known = self.roles.get(&role.name).map(|r| r.id);
        role.id = match known {
            Some(id) => id,
            None if role.name == ROOT => 0,
            None => {
                self.last_role_id += 1;
                self.last_role_id
            }
        };
        self.roles.insert(role.name.clone(), role);
    }

    /// `ALTER DEFAULT PRIVILEGES`: one more, or one less, or less its grant option.
    pub fn set_default(&mut self, grant: &DefaultGrant, revokes: bool, option_only: bool) {
        let all = &mut self.default_grants;
        let known = all.iter().find(|g| g.is_same(grant)).cloned();
        if let Some(known) = &known {
            all.remove(known);
        }
        let had_option = known.as_ref().is_some_and(|g| g.with_option);
        let with_option = match revokes {
            false => grant.with_option || had_option,
            true if option_only && known.is_some() => false,
            true => return,
        };
        all.insert(DefaultGrant {
            with_option,
            ..grant.clone()
        });
    }

    /// Grants on something new what its maker's defaults say.
    pub fn grant_defaults(&mut self, object: &Object, maker: &str, schema: Option<&str>) {
        let of = match object {
            Object::Relation(_) => NewObject::Relations,
            _ => NewObject::Schemas,
        };
        let is_meant = |g: &&DefaultGrant| {
            let here = g.schema.is_none() || g.schema.as_deref() == schema;
            g.role == maker && g.of == of && here && g.grantee.as_deref() != Some(maker)
        };
        for meant in self.default_grants.iter().filter(is_meant) {
            self.grants.give(Grant {
                with_option: meant.with_option,
                ..Grant::new(object.clone(), meant.privilege, meant.grantee.clone())
            });
        }
    }

    /// All roles, `root` first, then by name.
    pub fn all_roles(&self) -> Vec<Role> {
        let others = self.roles.values().filter(|r| r.name != ROOT).cloned();
        self.role(ROOT).into_iter().chain(others).collect()
    }

    /// Whether a role may do everything.
    pub fn is_superuser(&self, role: &str) -> bool {
        match self.roles.get(role) {
            Some(role) => role.superuser,
            None => role == ROOT,
        }
    }

    /// A role, and those that it is a member of, directly or not.
    pub fn memberships(&self, role: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::from([role.to_string()]);
        let mut open = vec![role.to_string()];
        while let Some(next) = open.pop() {
            let of = self.roles.get(&next).map(|r| &r.member_of);
            for role in of.into_iter().flatten() {
                if all.insert(role.clone()) {
                    open.push(role.clone());
                }
            }
        }
        all
    }

    /// Whether a role may do something with something.
    pub fn may(&self, role: &str, privilege: Privilege, object: &Object) -> bool {
        if self.is_superuser(role) {
            return true;
        }
        let roles = self.memberships(role);
        if self.owner_of(object).is_some_and(|o| roles.contains(o)) {
            return true;
        }
        let holds = |g: &Grant| {
            let to = g.grantee.as_ref();
            g.privilege == privilege && to.is_none_or(|to| roles.contains(to))
        };
        self.grants.of(object).any(holds)
    }

    /// Whose grant it is when a role grants a privilege: the owner's (`Some(None)`) where the role
    /// may do what the owner may, else that of a role that it is, or is a member of, and that has
    /// the grant option; `None` if it may not grant.
    pub fn grantor(
        &self,
        role: &str,
        privilege: Privilege,
        object: &Object,
    ) -> Option<Option<String>> {
        let roles = self.memberships(role);
        let own = self.owner_of(object).is_some_and(|o| roles.contains(o));
        if own || self.is_superuser(role) {
            return Some(None);
        }
        let grants = self.grants.of(object);
        let mut options = grants.filter(|g| g.privilege == privilege && g.with_option);
        let own = options.find_map(|g| g.grantee.clone().filter(|to| roles.contains(to)));
        own.map(Some)
    }

    /// Whether a role is the owner of a relation, a member of that role, or a superuser.
    pub fn owns(&self, role: &str, relation: &Relation) -> bool {
        self.is_superuser(role) || self.memberships(role).contains(&relation.owner)
    }

    /// Who owns something; none for what belongs to superusers alone.
    pub fn owner_of(&self, object: &Object) -> Option<&str> {
        match object {
            Object::Relation(id) => self.relations.get(id).map(|r| r.owner.as_str()),
            Object::Schema(name) => self.schema_owners.get(name).map(String::as_str),
            Object::Database => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_come_by_ownership_by_grants_and_by_membership() {
        let mut catalog = Catalog::default();
        let role = |name: &str, of: &[&str]| Role {
            member_of: of.iter().map(|r| r.to_string()).collect(),
            ..Role::new(name)
        };
        for role in [
            role("ann", &["staff"]),
            role("staff", &["all"]),
            role("all", &[]),
            role("bob", &[]),
        ] {
            catalog.roles.insert(role.name.clone(), role);
        }
        let shop = Object::Schema("shop".into());
        catalog.schema_owners.insert("shop".into(), "staff".into());
        let may = |catalog: &Catalog, role| catalog.may(role, Privilege::Create, &shop);
        assert_eq!(
            ["root", "ann", "staff", "all", "bob"].map(|r| may(&catalog, r)),
            [true, true, true, false, false]
        );
        let grant = |grantee: Option<&str>| {
            let grantee = grantee.map(str::to_string);
            Grant::new(shop.clone(), Privilege::Create, grantee)
        };
        catalog.grants.0.insert(grant(Some("all")));
        assert!(may(&catalog, "all") && !may(&catalog, "bob"));
        catalog.grants.0.insert(grant(None));
        assert!(may(&catalog, "bob"));
        catalog.grants.forget(&shop);
        assert!(!may(&catalog, "bob") && may(&catalog, "root"));
        assert!(catalog.may("bob", Privilege::Usage, &Object::Schema("public".into())));
    }
    #[test]
    fn a_number_is_one_roles_for_ever() {
        let mut catalog = Catalog::default();
        for name in ["b", "c", "a", ROOT] {
            catalog.put_role(Role::new(name));
        }
        let id = |catalog: &Catalog, name: &str| catalog.roles[name].id;
        assert_eq!(["b", "c", "a", ROOT].map(|n| id(&catalog, n)), [1, 2, 3, 0]);
        catalog.roles.remove("a");
        catalog.put_role(Role::new("c"));
        catalog.put_role(Role::new("a"));
        assert_eq!(["b", "c", "a"].map(|n| id(&catalog, n)), [1, 2, 4]);
        let text = serde_json::to_string(&catalog).unwrap();
        let mut again: Catalog = serde_json::from_str(&text).unwrap();
        assert_eq!(again, catalog);
        again.put_role(Role::new("d"));
        assert_eq!(id(&again, "d"), 5);
        // As it was stored before roles had numbers.
        let old = text
            .replace(",\"id\":", ",\"no\":")
            .replace("last_role_id", "none");
        let mut old: Catalog = serde_json::from_str(&old).unwrap();
        assert_eq!(["a", "b", "c"].map(|n| id(&old, n)), [1, 2, 3]);
        old.put_role(Role::new("d"));
        assert_eq!(id(&old, "d"), 4);
    }
    #[test]
    fn what_rests_on_a_grant_option_goes_with_it() {
        let (object, mut grants) = (Object::Database, Grants(Default::default()));
        let grant = |from: Option<&str>, to: &str, with_option| Grant {
            grantor: from.map(str::to_string),
            with_option,
            ..Grant::new(object.clone(), Privilege::Create, Some(to.into()))
        };
        grants.give(grant(None, "ann", true));
        grants.give(grant(Some("ann"), "bob", true));
        grants.give(grant(Some("bob"), "cid", false));
        // Without the option, it keeps the one that it has.
        grants.give(grant(None, "ann", false));
        assert_eq!((grants.0.len(), grants.without_grantor().len()), (3, 0));
        let all = grants.clone();
        grants.take(&grant(None, "ann", false), true);
        assert_eq!(grants.without_grantor(), [grant(Some("ann"), "bob", true)]);
        grants.cascade();
        assert_eq!(grants.0, BTreeSet::from([grant(None, "ann", false)]));
        // Two ways to an option: one of them is enough.
        let mut grants = all;
        grants.give(grant(None, "bob", true));
        grants.take(&grant(Some("ann"), "bob", true), false);
        assert_eq!((grants.0.len(), grants.without_grantor().len()), (3, 0));
    }
}
