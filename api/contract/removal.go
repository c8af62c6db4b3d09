package contract

import "time"

// RemovedAfter is how long what routes name still counts after it was removed:
// proxies use the routes that name it until they took their next update.
const RemovedAfter = time.Minute
