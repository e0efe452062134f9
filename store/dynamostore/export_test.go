package dynamostore

// ItemOf and ItemFrom give the tests outside the form of an item in the table.
var (
	ItemOf   = encode
	ItemFrom = decode
	SizeOf   = size
)
