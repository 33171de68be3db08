package scsi

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	naaA  = unitDesignator(DesignatorNAA, "6001405abcdef0123456789abcdef012")
	naaB  = unitDesignator(DesignatorNAA, "6001405abcdef0123456789abcdef013")
	naa5A = unitDesignator(DesignatorNAA, "5000c500a1b2c3d4")
	euiA  = unitDesignator(DesignatorEUI64, "0025385a91b2c3d4")
	euiB  = unitDesignator(DesignatorEUI64, "0025385a91b2c3d5")
	tgt   = unitDesignator(DesignatorNAA, "60000000000000000e00000000010001")
	tgt2  = unitDesignator(DesignatorNAA, "60000000000000000e00000000020001")
	t10A  = unitDesignator(DesignatorT10, "IET     00010001")
	t10B  = unitDesignator(DesignatorT10, "IET     00010002")
	nameA = unitDesignator(DesignatorName, "iqn.2001-04.com.example:a,L,0x0001000000000000")
	nameB = unitDesignator(DesignatorName, "naa.6001405abcdef0123456789abcdef012")
	port1 = Designator{Association: AssociationPort, Type: DesignatorRelativePort, ID: []byte{0, 0, 0, 1}}
	port2 = Designator{Association: AssociationPort, Type: DesignatorRelativePort, ID: []byte{0, 0, 0, 2}}
	rel1  = unitDesignator(DesignatorRelativePort, "00000001")
	rel2  = unitDesignator(DesignatorRelativePort, "00000002")
	vendA = unitDesignator(DesignatorVendor, "0102")
	vendB = unitDesignator(DesignatorVendor, "0103")
)

// unit is a disk of 1 GiB with these designators, changed as asked.
func unit(change func(*Identity), designators ...Designator) Identity {
	id := Identity{
		Designators: designators, Serial: "beaf11", Vendor: "ACME", Product: "disk", Revision: "1",
		Capacity: Capacity{LastLBA: 2097151, BlockSize: 512},
	}
	if change != nil {
		change(&id)
	}
	return id
}

func TestSameUnit(t *testing.T) {
	noSerial := func(i *Identity) { i.Serial = "" }
	otherSerial := func(i *Identity) { i.Serial = "beaf12" }
	noCapacity := func(i *Identity) { i.Capacity = Capacity{} }
	tests := []struct {
		name string
		a, b Identity
		want Match
		why  string
	}{
		{"strong agrees", unit(nil, naaA), unit(nil, naaA), Same, "naa.6001405abcdef0123456789abcdef012 and capacity agree"},
		{"over two ports", unit(nil, naaA, port1, rel1), unit(nil, port2, rel2, naaA), Same, "and capacity agree"},
		{"another firmware", unit(nil, naaA), unit(func(i *Identity) { i.Revision = "2" }, naaA), Same, "agree"},
		{"other provisioning bits", unit(nil, naaA), unit(func(i *Identity) { i.Capacity.LBPRZ = true }, naaA), Same, "agree"},
		{"one lists more", unit(nil, naaA, euiA), unit(nil, naaA), Same, "agree"},
		{"two of a kind, one in common", unit(nil, naaA, naaB), unit(nil, naaB), Same, "f013"},
		{"a weak one differs beside", unit(nil, naaA, t10A), unit(nil, naaA, t10B), Same, "agree"},
		{"names of two authorities", unit(nil, naaA, nameA), unit(nil, naaA, nameB), Same, "agree"},
		{"one has no serial", unit(nil, naaA), unit(noSerial, naaA), Same, "agree"},

		{"strong differs", unit(nil, naaA), unit(nil, naaB), Different, "naa.6001405abcdef0123456789abcdef012 and naa.6001405abcdef0123456789abcdef013"},
		{"one agrees, one contradicts", unit(nil, naaA, euiA), unit(nil, naaA, euiB), Different, "eui."},
		{"LUN number given to another disk", unit(nil, naaA), unit(otherSerial, naaB), Different, "designators"},
		{"size", unit(nil, naaA), unit(func(i *Identity) { i.Capacity.LastLBA++ }, naaA), Different, "capacity 2097152 and 2097153 blocks"},
		{"block size", unit(nil, naaA), unit(func(i *Identity) { i.Capacity.BlockSize = 4096 }, naaA), Different, "block size 512 and 4096"},
		{"device type", unit(nil, naaA), unit(func(i *Identity) { i.DeviceType = TypeController }, naaA), Different, "device type 0 and 12"},
		{"weak differs", unit(nil, tgt), unit(nil, tgt2), Different, "designators naa.6000"},
		{"T10 differs", unit(noSerial, t10A), unit(noSerial, t10B), Different, "designators t10."},
		{"serial differs", unit(nil), unit(otherSerial), Different, `serial number "beaf11" and "beaf12"`},
		{"serial differs, weak agrees", unit(nil, tgt), unit(otherSerial, tgt), Different, "serial number"},
		{"product differs", unit(noSerial), unit(func(i *Identity) { i.Serial, i.Product = "", "disc" }), Different, `product "disc" and "disk"`},

		{"weak agrees: two tgt daemons", unit(nil, tgt, t10A), unit(nil, tgt, t10A), Unproven, "only naa.60000000000000000e00000000010001 agrees"},
		{"only the serial", unit(nil), unit(nil), Unproven, "only the serial number agrees"},
		{"nothing at all", unit(noSerial), unit(noSerial), Unproven, "no designator in common"},
		{"zero identities", Identity{}, Identity{}, Unproven, "no designator in common"},
		{"strong of two kinds", unit(nil, naaA), unit(noSerial, euiA), Unproven, "of different kinds"},
		{"NAA of two formats", unit(noSerial, naaA), unit(noSerial, naa5A), Unproven, "of different kinds"},
		{"strong and weak", unit(nil, naaA, t10A), unit(nil, t10A), Different, "only one has a globally unique designator"},
		{"strong and none", unit(nil, naaA), unit(noSerial), Unproven, "no designator in common"},
		{"strong of the port does not count", unit(noSerial, withPort(naaA)), unit(noSerial, withPort(naaA)), Unproven, "no designator"},
		{"vendor specific ones prove nothing", unit(noSerial, vendA), unit(noSerial, vendB), Unproven, "no designator"},
		{"strong agrees, capacity not read", unit(noCapacity, naaA), unit(nil, naaA), Unproven, "the capacity is not known"},
		{"strong agrees, serial does not", unit(nil, naaA), unit(otherSerial, naaA), Unproven, "agrees, but serial number"},
		{"strong agrees, product does not", unit(nil, naaA), unit(func(i *Identity) { i.Product = "disc" }, naaA), Unproven, "agrees, but product"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, why := SameUnit(tt.a, tt.b)
			assert.Equal(t, tt.want, got, why)
			assert.Contains(t, why, tt.why)
			back, whyBack := SameUnit(tt.b, tt.a)
			assert.Equal(t, got, back, "symmetric")
			assert.Equal(t, why, whyBack, "symmetric")
		})
	}
}

// withPort is d as a designator of the target port.
func withPort(d Designator) Designator {
	d.Association = AssociationPort
	return d
}

// TestSameUnitIsSafe draws identities at random and checks what must hold for all.
func TestSameUnitIsSafe(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pool := []Designator{naaA, naaB, naa5A, euiA, euiB, tgt, tgt2, t10A, t10B, nameA, nameB, port1, port2, rel1, rel2, vendA, vendB}
	draw := func() Identity {
		return unit(func(i *Identity) {
			for _, d := range pool {
				if rng.IntN(4) == 0 {
					i.Designators = append(i.Designators, d)
				}
			}
			i.Serial = []string{"", "s1", "s2"}[rng.IntN(3)]
			i.Capacity = []Capacity{{}, {LastLBA: 9, BlockSize: 512}, {LastLBA: 10, BlockSize: 512}}[rng.IntN(3)]
		})
	}
	count := map[Match]int{}
	for range 5000 {
		a, b := draw(), draw()
		match, why := SameUnit(a, b)
		count[match]++
		back, whyBack := SameUnit(b, a)
		require.Equal(t, match, back)
		require.Equal(t, why, whyBack)
		require.NotEmpty(t, why)

		slices.Reverse(a.Designators)
		turned, whyTurned := SameUnit(a, b)
		require.Equal(t, match, turned, "the order of designators does not matter")
		require.Equal(t, why, whyTurned)

		if match == Same {
			require.True(t, a.Strength() == Strong && b.Strength() == Strong)
			require.Equal(t, a.Capacity, b.Capacity)
			require.True(t, a.Capacity.Known())
			require.True(t, slices.ContainsFunc(a.Designators, func(d Designator) bool {
				return d.strong() && slices.ContainsFunc(b.Designators, d.Equal)
			}))
		}
		self, why := SameUnit(a, a)
		require.NotEqual(t, Different, self, why)
	}
	for _, m := range []Match{Same, Different, Unproven} {
		require.Greater(t, count[m], 50, m)
	}
}

func TestIdentityName(t *testing.T) {
	tests := []struct {
		id   Identity
		want string
	}{
		{unit(nil, t10A, port1, euiA, naaA), "naa.6001405abcdef0123456789abcdef012"},
		{unit(nil, nameA, euiA), "eui.0025385a91b2c3d4"},
		{unit(nil, nameA, unitDesignator(DesignatorUUID, "1000f81d4fae7dec11d0a76500a0c91e6bf6")), "uuid.f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},
		{unit(nil, t10A, nameA), "iqn.2001-04.com.example:a,L,0x0001000000000000"},
		{unit(nil, t10A, tgt), "serial.beaf11"},
		{unit(func(i *Identity) { i.Serial = "" }, rel1, t10A), "t10.IET     00010001"},
		{unit(func(i *Identity) { i.Serial = "" }, rel1, port1), ""},
	}
	for _, tt := range tests {
		before := slices.Clone(tt.id.Designators)
		assert.Equal(t, tt.want, tt.id.Name())
		assert.Equal(t, before, tt.id.Designators, "the caller's list stays as it is")
	}
	assert.Equal(t, "naa.6001405abcdef0123456789abcdef012 (ACME disk, 2097152 blocks of 512 bytes)", unit(nil, naaA).String())
	assert.Equal(t, "unit without a name (unknown capacity)", Identity{}.String())
}

func TestIdentityWords(t *testing.T) {
	assert.Equal(t, "strong weak none strength?", Strong.String()+" "+Weak.String()+" "+None.String()+" "+Strength(9).String())
	assert.Equal(t, "same different unproven match?", Same.String()+" "+Different.String()+" "+Unproven.String()+" "+Match(9).String())
}
