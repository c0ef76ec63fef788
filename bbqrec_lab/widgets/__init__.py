"""Interactive views: the codebook inspector, the quantization stepper, the attention explorer, the playground.

Each view is a pure function of a frozen state. `state_board` connects states with controls. `html_cards` draws items.
"""
