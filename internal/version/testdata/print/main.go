// Command print is linked by the test, with a version.
package main

import (
	"fmt"

	"github.com/bellhop-dev/bellhop/internal/version"
)

func main() { fmt.Print(version.String()) }
