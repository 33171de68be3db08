package invariants

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMangle(t *testing.T) {
	b := []byte{1, 2, 3}
	Mangle(b)
	if Enabled {
		assert.Equal(t, []byte{poison, poison, poison}, b)
	} else {
		assert.Equal(t, []byte{1, 2, 3}, b)
	}
	Mangle(nil)
}
