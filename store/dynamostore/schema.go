package dynamostore

// Table says how a table must be made. Every attribute that is a key is a string.
type Table struct {
	Key     string // the attribute that is the partition key; there is no sort key
	TTL     string // the attribute that holds the time to live
	Indexes []Index
}

// Index is a global secondary index. Only items that have both of its keys are in it.
type Index struct {
	Name    string
	Hash    string   // the attribute that is its partition key
	Range   string   // the attribute that is its sort key
	Include []string // the attributes that it holds beside the keys; none: KEYS_ONLY
}

// The attributes that are no members of an item's JSON object, and those of its
// members that an index or an expression names.
const (
	attrItem       = "item"            // the key: Ref.String
	attrDue        = "due"             // the constant dueHash, on items that have a due_at
	attrList       = "list"            // the kind, on requests and runners
	attrListedAt   = "listed_at"       // store.Cursor
	attrRepository = "repository_list" // <kind>#<repository id>
	attrOpen       = "open_of"         // store.OpenIn, on requests and runners that are not over
	attrFound      = "found_by"        // <kind>#store.FoundBy, on requests and runners that have one

	attrDueAt   = "due_at"
	attrState   = "state"
	attrTTL     = "ttl"
	attrVersion = "version"
)

// The names of the indexes.
const (
	indexDue        = "due"
	indexList       = "list"
	indexRepository = "repository"
	indexOpen       = "open"
	indexFind       = "find"
)

// dueHash is the one partition of the due index: DynamoDB writes 1,000 small items
// a second to a partition, and GARO a few for each machine and minute.
const dueHash = "due"

// ours are the attributes that only the table has.
var ours = []string{attrItem, attrDue, attrList, attrListedAt, attrRepository, attrOpen, attrFound}

// Schema returns what the code of this package demands of its table.
func Schema() Table {
	return Table{
		Key: attrItem,
		TTL: attrTTL,
		Indexes: []Index{
			{Name: indexDue, Hash: attrDue, Range: attrDueAt},
			{Name: indexList, Hash: attrList, Range: attrListedAt, Include: []string{attrState}},
			{Name: indexRepository, Hash: attrRepository, Range: attrListedAt, Include: []string{attrState}},
			{Name: indexOpen, Hash: attrOpen, Range: attrListedAt},
			{Name: indexFind, Hash: attrFound, Range: attrListedAt},
		},
	}
}
