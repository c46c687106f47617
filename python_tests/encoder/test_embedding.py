import torch

from sem.encoder import Carrier, TokenEmbedding


def test_each_token_has_its_wave_of_unit_rms_wherever_it_stands():
    torch.manual_seed(0)
    encoder = TokenEmbedding(50, 64)
    tokens = torch.randint(50, (2, 30))
    waves = encoder(tokens)
    assert waves.dtype == torch.complex64
    torch.testing.assert_close(waves, torch.view_as_complex(encoder.weight)[tokens])
    assert abs(float(waves.abs().square().mean()) - 1) < 0.1


def test_pieces_give_what_the_whole_gives():
    torch.manual_seed(0)
    encoder, tokens = TokenEmbedding(50, 8, carrier=True), torch.randint(50, (3, 20))
    state, weights, found = encoder.start(3), encoder.weights(), []
    for piece in tokens.split([1, 7, 12], 1):
        waves, state = encoder.advance(piece, state, weights)
        found.append(waves)
    torch.testing.assert_close(torch.cat(found, 1), encoder(tokens))
    assert state.rows.tolist() == [20, 20, 20]


def test_carrier_turns_each_channel_at_its_own_rate():
    wave = torch.ones(1, 5, 4, dtype=torch.complex64)
    positions = torch.arange(5)
    expected = 10000.0 ** (-torch.arange(4) / 4) * positions.unsqueeze(-1)
    torch.testing.assert_close(Carrier(4).turn(wave, positions)[0], torch.polar(torch.ones(5, 4), expected))
    assert Carrier(4, on=False).turn(wave, positions) is wave
